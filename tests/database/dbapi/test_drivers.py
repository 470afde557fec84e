from pathlib import Path

import duckdb
import psycopg
import pytest
import trio
from psycopg.rows import dict_row

from nimblepool import open_pool
from nimblepool.testing import check_balance, check_worker
from nimblepool_database import Database, TransactionLost, Unsupported
from nimblepool_database._dbapi._duckdb import duckdb_worker
from nimblepool_database._dbapi._psycopg import psycopg_worker
from nimblepool_database._dbapi._sqlite3 import sqlite3_worker
from tests.database.dbapi.kind import PATIENCE, Kind
from tests.database.postgres.server import PostgresServer


async def test_it_keeps_the_contract_of_a_worker(kind: Kind) -> None:
    await check_worker(kind.worker)


async def test_statements_and_rows(kind: Kind) -> None:
    async with Database(kind.worker) as db:
        await kind.set_up(db)
        assert await db.execute(kind.sql("INSERT INTO account VALUES (?, ?)"), (1, 10)) == 1
        assert (
            await db.execute_many(kind.sql("INSERT INTO account VALUES (?, ?)"), [(n, n) for n in range(2, 2503)])
            == 2501
        )
        assert await db.execute_many(kind.sql("INSERT INTO account VALUES (?, ?)"), []) == 0
        assert await db.execute("UPDATE account SET balance = 7 WHERE id <= 100") == 100
        assert await db.execute("SELECT * FROM account") == 0
        assert await db.fetch_one("SELECT * FROM account ORDER BY id") == (1, 7)
        assert await db.fetch_all("SELECT id FROM account WHERE id < 4 ORDER BY id") == [(1,), (2,), (3,)]
        assert await db.fetch_all("SELECT id FROM account WHERE id < 0") == []
        assert await db.fetch_one("SELECT id FROM account WHERE id < 0") is None
        assert await db.fetch_value("SELECT count(*) FROM account") == 2502
        assert await db.fetch_value("SELECT '100%'") == "100%"
    check_balance(db.pool)


async def test_a_change_that_returns_rows(kind: Kind) -> None:
    async with Database(kind.worker) as db:
        await kind.set_up(db)
        assert await db.fetch_all("INSERT INTO account VALUES (1, 0), (2, 0) RETURNING id") == [(1,), (2,)]
        assert await db.fetch_one("INSERT INTO account VALUES (3, 0), (4, 0) RETURNING id") == (3,)
        assert await db.execute("/* one more */ INSERT INTO account VALUES (5, 0), (6, 0) RETURNING id") == 2
        assert await db.fetch_value("SELECT count(*) FROM account") == 6


async def test_many_rows_happen_all_or_none(kind: Kind) -> None:
    insert = kind.sql("INSERT INTO account VALUES (?, ?)")
    twice = [(n, 0) for n in [*range(2000, 4000), 2000]]
    async with Database(kind.worker) as db:
        await kind.set_up(db)
        with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
            await db.execute_many(insert, twice)
        assert await kind.balances(db) == []
        async with db.connection() as conn:
            with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
                await conn.execute_many(insert, twice)
            # The same connection is in no transaction: this would be refused.
            async with conn.transaction():
                pass
        with pytest.raises(Exception, match=r"(?i)unique|duplicate|gone"):
            async with db.transaction() as conn:
                await conn.execute(insert, (1, 1))
                with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
                    await conn.execute_many(insert, twice)
                if not kind.savepoints:
                    raise AssertionError("gone, like everything in this transaction") from None
                raise ValueError("unique")
        assert await kind.balances(db) == []


async def test_where_there_are_savepoints_a_transaction_survives_many_rows_that_fail(kind: Kind) -> None:
    insert = kind.sql("INSERT INTO account VALUES (?, ?)")
    async with Database(kind.worker) as db:
        await kind.set_up(db)
        outcome: type[BaseException] | None = None
        try:
            async with db.transaction() as conn:
                await conn.execute(insert, (1, 1))
                with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
                    await conn.execute_many(insert, [(2, 2), (1, 1)])
        except TransactionLost as error:
            outcome = type(error)
        assert (outcome is None) == kind.savepoints
        assert await kind.balances(db) == ([(1, 1)] if kind.savepoints else [])


async def test_transactions(kind: Kind) -> None:
    insert = kind.sql("INSERT INTO account VALUES (?, ?)")
    async with Database(kind.worker, max_size=1) as db:
        await kind.set_up(db)
        async with db.transaction() as conn:
            await conn.execute(insert, (1, 1))
        with pytest.raises(ZeroDivisionError):
            async with db.transaction() as conn:
                await conn.execute(insert, (2, 2))
                raise ZeroDivisionError
        assert await kind.balances(db) == [(1, 1)]
        async with db.connection() as conn:
            await conn.execute("BEGIN")
            await conn.execute(insert, (3, 3))
        assert await kind.balances(db) == [(1, 1)]
        assert db.stats.opened == 1


async def test_transactions_inside_transactions(kind: Kind) -> None:
    insert = kind.sql("INSERT INTO account VALUES (?, ?)")
    async with Database(kind.worker) as db:
        await kind.set_up(db)
        if not kind.savepoints:
            async with db.transaction() as conn:
                await conn.execute(insert, (1, 1))
                with pytest.raises(Unsupported, match="DuckDB"):
                    async with conn.transaction():
                        pass
        else:
            async with db.transaction() as conn:
                await conn.execute(insert, (1, 1))
                with pytest.raises(ZeroDivisionError):
                    async with conn.transaction():
                        await conn.execute(insert, (2, 2))
                        raise ZeroDivisionError
                async with conn.transaction(), conn.transaction():
                    await conn.execute(insert, (3, 3))
        assert await kind.balances(db) == ([(1, 1), (3, 3)] if kind.savepoints else [(1, 1)])


async def test_a_transaction_that_was_ended_by_hand_does_not_come_to_a_good_end(kind: Kind) -> None:
    insert = kind.sql("INSERT INTO account VALUES (?, ?)")
    async with Database(kind.worker) as db:
        await kind.set_up(db)
        # DuckDB does not tell whether a transaction is open: there it is the COMMIT that is refused.
        with pytest.raises((TransactionLost, duckdb.TransactionException)):
            async with db.transaction() as conn:
                await conn.execute("ROLLBACK")
                await conn.execute(insert, (1, 1))
        assert await kind.balances(db) == ([] if kind.savepoints else [(1, 1)])


@pytest.mark.parametrize("read", [0, 1, 250, 1000])
async def test_streams_may_be_left_anywhere(kind: Kind, read: int) -> None:
    async with Database(kind.worker, max_size=1) as db:
        await kind.set_up(db)
        await db.execute_many(kind.sql("INSERT INTO account VALUES (?, ?)"), [(n, n) for n in range(1000)])
        seen: list[int] = []
        async with db.connection() as conn:
            async with conn.stream("SELECT id FROM account ORDER BY id", batch=100) as rows:
                while len(seen) < read:
                    seen.append((await anext(aiter(rows)))[0])
                if read == 1000:
                    with pytest.raises(StopAsyncIteration):
                        await anext(aiter(rows))
            assert seen == list(range(read))
            assert await conn.fetch_value("SELECT count(*) FROM account") == 1000
            async with conn.transaction():
                async with conn.stream(kind.sql("SELECT id FROM account WHERE id >= ?"), (990,), batch=4) as rows:
                    assert len([row async for row in rows]) == 10
                await conn.execute("DELETE FROM account WHERE id >= 10")
        assert len(await kind.balances(db)) == 10
        assert db.stats.opened == 1


async def test_call_has_the_drivers_connection(kind: Kind) -> None:
    async with Database(kind.worker) as db, db.connection() as conn:
        value = await conn.call(lambda raw, sql: raw.execute(sql).fetchall(), "SELECT 6 * 7")
        assert [tuple(row) for row in value] == [(42,)]


async def test_a_connection_that_the_client_closed_is_not_lent_on(kind: Kind) -> None:
    async with Database(kind.worker, max_size=1) as db:
        async with db.connection() as conn:
            await conn.call(lambda raw: raw.close())
            with pytest.raises(Exception, match=r"(?i)closed"):
                await conn.fetch_value("SELECT 1")
        assert await db.fetch_value("SELECT 1") == 1
        assert db.stats.opened == 2


async def test_the_isolation_levels_of_postgresql(server: PostgresServer) -> None:
    async with Database(psycopg_worker(server.url)) as db:
        for isolation in ("read uncommitted", "read committed", "repeatable read", "serializable"):
            async with db.transaction(isolation=isolation, readonly=True) as conn:
                assert await conn.fetch_value("SHOW transaction_isolation") == isolation
                assert await conn.fetch_value("SHOW transaction_read_only") == "on"
        assert await db.fetch_value("SHOW transaction_read_only") == "off"


async def test_an_isolation_level_is_no_way_to_smuggle_a_statement_in(kind: Kind) -> None:
    async with open_pool(kind.worker) as pool, pool.checkout() as lease:
        with pytest.raises(ValueError, match="'serializable', or None"):
            await lease.resource.begin("serializable; DROP TABLE account")


async def test_postgresql_does_not_commit_what_has_failed(server: PostgresServer) -> None:
    async with Database(psycopg_worker(server.url)) as db:
        await db.execute("DROP TABLE IF EXISTS t")
        await db.execute("CREATE TABLE t (n int)")
        with pytest.raises(TransactionLost, match="failed") as caught:
            async with db.transaction() as conn:
                await conn.execute("INSERT INTO t VALUES (1)")
                with pytest.raises(psycopg.errors.UndefinedTable):
                    await conn.execute("SELECT * FROM nowhere")
        assert isinstance(caught.value, psycopg.OperationalError)
        assert await db.fetch_value("SELECT count(*) FROM t") == 0


async def test_row_factories_are_kept(server: PostgresServer) -> None:
    async with Database(psycopg_worker(server.url, row_factory=dict_row)) as db:
        assert await db.fetch_one("SELECT 1 AS a, 2 AS b") == {"a": 1, "b": 2}
        assert await db.fetch_value("SELECT 1 AS a, 2 AS b") == 1
        async with db.connection() as conn, conn.stream("SELECT 3 AS c", batch=1) as rows:
            assert [row async for row in rows] == [{"c": 3}]


async def test_a_session_that_the_server_ended_is_replaced(server: PostgresServer) -> None:
    async with Database(psycopg_worker(server.url), max_size=2) as db:
        async with db.connection() as victim, db.connection() as killer:
            pid = await victim.fetch_value("SELECT pg_backend_pid()")
            await killer.fetch_value("SELECT pg_terminate_backend(%s, 5000)", (pid,))
            with pytest.raises(psycopg.OperationalError):
                await victim.fetch_value("SELECT 1")
        assert await db.fetch_value("SELECT 1") == 1
        assert db.stats.size <= 2


async def test_duckdb_connections_see_one_database(tmp_path: Path) -> None:
    async with Database(duckdb_worker(tmp_path / "d.db"), max_size=3) as db, db.connection() as one:
        await one.execute("CREATE TABLE t AS SELECT 42 AS n")
        async with db.connection() as two, db.connection() as three:
            assert await two.fetch_value("SELECT n FROM t") == await three.fetch_value("SELECT n FROM t") == 42


async def test_duckdb_refuses_what_would_break_an_open_stream(tmp_path: Path) -> None:
    async with Database(duckdb_worker(tmp_path / "d.db")) as db, db.connection() as conn:
        async with conn.stream("SELECT * FROM range(100000)", batch=10) as rows:
            assert await anext(aiter(rows)) == (0,)
            with pytest.raises(RuntimeError, match="a stream is open"):
                await conn.fetch_value("SELECT 1")
            assert len([row async for row in rows]) == 99_999
        assert await conn.fetch_value("SELECT 1") == 1


async def test_duckdb_read_only_transactions_and_levels(tmp_path: Path) -> None:
    async with Database(duckdb_worker(tmp_path / "d.db")) as db:
        await db.execute("CREATE TABLE t (n int)")
        with pytest.raises(duckdb.Error, match="read-only"):
            async with db.transaction(isolation="repeatable read", readonly=True) as conn:
                await conn.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(Unsupported, match="serializable"):
            async with db.transaction(isolation="serializable"):
                pass
        assert await db.execute("INSERT INTO t VALUES (1)") == 1


@pytest.mark.parametrize("make", [duckdb_worker, sqlite3_worker])
async def test_a_database_in_memory_has_one_connection(make: type) -> None:
    async with Database(make(":memory:")) as db:
        await db.execute("CREATE TABLE t (n int)")
        async with trio.open_nursery() as nursery:
            for n in range(20):
                nursery.start_soon(db.execute, f"INSERT INTO t VALUES ({n})")
        assert await db.fetch_value("SELECT count(*) FROM t") == 20
    with pytest.raises(ValueError, match="max_size must be 1"):
        Database(make(":memory:"), max_size=2)


async def test_transfers_between_accounts_keep_the_sum(kind: Kind) -> None:
    async with Database(kind.worker, max_size=3, checkout_timeout=60.0) as db:
        await kind.set_up(db)
        await db.execute_many(kind.sql("INSERT INTO account VALUES (?, ?)"), [(n, 100) for n in range(4)])
        acknowledged = 0

        async def transfer(source: int, target: int) -> None:
            nonlocal acknowledged
            try:
                async with db.transaction() as conn:
                    await conn.execute(kind.sql("UPDATE account SET balance = balance - 1 WHERE id = ?"), (source,))
                    await conn.execute(kind.sql("UPDATE account SET balance = balance + 1 WHERE id = ?"), (target,))
            except (duckdb.TransactionException, psycopg.errors.DeadlockDetected):
                return
            acknowledged += source == 0

        with trio.fail_after(6 * PATIENCE):
            async with trio.open_nursery() as nursery:
                for n in range(60):
                    nursery.start_soon(transfer, n % 2, 2 + n % 2)
        balances = dict(await kind.balances(db))
        assert sum(balances.values()) == 400
        assert balances[0] == 100 - acknowledged
        assert acknowledged > 0
        await kind.check_every_connection(db, 3)
    check_balance(db.pool)


async def test_a_sandbox_leaves_nothing_behind(kind: Kind) -> None:
    async with Database(kind.worker) as db:
        await kind.set_up(db)
        if not kind.savepoints:
            with pytest.raises(Unsupported, match="DuckDB"):
                async with db.sandbox():
                    await db.execute("INSERT INTO account VALUES (1, 1)")
            assert await kind.balances(db) == []
            return
        async with db.sandbox():
            async with db.transaction() as conn:
                await conn.execute("INSERT INTO account VALUES (1, 1)")
            async with trio.open_nursery() as nursery:
                for n in range(2, 6):
                    nursery.start_soon(db.execute, f"INSERT INTO account VALUES ({n}, 0)")
            assert len(await kind.balances(db)) == 5
        assert await kind.balances(db) == []
