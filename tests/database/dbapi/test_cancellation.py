import random
from collections.abc import Awaitable, Callable

import psycopg
import pytest
import trio

from nimblepool import ResourceLost
from nimblepool.testing import check_balance, sweep
from nimblepool_database import CommitUnknown, Database
from nimblepool_database._dbapi._psycopg import psycopg_worker
from tests.database.dbapi.kind import PATIENCE, Kind, connection_threads, marker, until
from tests.database.postgres.server import PostgresServer


@pytest.mark.parametrize("method", ["execute", "fetch_all", "fetch_one", "fetch_value", "call"])
async def test_cancelling_breaks_the_statement_off_and_keeps_the_connection(kind: Kind, method: str) -> None:
    arguments = [kind.endless] if method != "call" else [lambda raw: raw.execute(kind.endless).fetchall()]
    async with Database(kind.worker, max_size=1) as db:
        with trio.fail_after(PATIENCE):
            async with db.connection() as conn:
                with trio.move_on_after(0.05) as scope:
                    await getattr(conn, method)(*arguments)
                assert scope.cancelled_caught
                mine = marker()
                assert await conn.fetch_value(kind.sql("SELECT CAST(? AS INTEGER)"), (mine,)) == mine
        await kind.check_every_connection(db, 1)
        assert db.stats.opened == 1


async def test_cancelling_ends_the_work_in_the_server(server: PostgresServer) -> None:
    running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(61)%' AND state = 'active'"
    async with Database(psycopg_worker(server.url), max_size=2) as db:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(db.execute, "SELECT pg_sleep(61)")
            with trio.fail_after(PATIENCE):
                while await db.fetch_value(running) == 0:
                    pass
            nursery.cancel_scope.cancel()
        assert await db.fetch_value(running) == 0


async def test_cancelling_many_rows_undoes_them(kind: Kind) -> None:
    rows = [(n, 0) for n in range(1_000_000)]
    async with Database(kind.worker, max_size=1) as db:
        await kind.set_up(db)
        with trio.fail_after(PATIENCE), trio.move_on_after(0.1) as scope:
            await db.execute_many(kind.sql("INSERT INTO account VALUES (?, ?)"), rows)
        assert scope.cancelled_caught
        assert await kind.balances(db) == []
        assert db.stats.opened == 1


async def test_cancelling_the_reading_of_a_stream(kind: Kind) -> None:
    async with Database(kind.worker, max_size=1) as db:
        await kind.set_up(db)
        with trio.fail_after(PATIENCE):
            with trio.move_on_after(0.05) as scope:
                async with db.connection() as conn, conn.stream(kind.endless, batch=1) as rows:
                    await anext(aiter(rows))
            assert scope.cancelled_caught
            await kind.check_every_connection(db, 1)
        assert db.stats.opened == 1


async def use_a_connection(kind: Kind, db: Database) -> None:
    async with db.connection() as conn:
        mine = marker()
        assert await conn.fetch_all(kind.sql("SELECT CAST(? AS INTEGER)"), (mine,)) == [(mine,)]
        await conn.execute("UPDATE account SET balance = balance + 1")


async def use_a_transaction(kind: Kind, db: Database) -> None:
    async with db.transaction() as conn:
        await conn.execute("UPDATE account SET balance = balance + 1 WHERE id = 1")
        if kind.savepoints:
            async with conn.transaction():
                await conn.execute("UPDATE account SET balance = balance + 1 WHERE id = 1")
            with pytest.raises(ZeroDivisionError):
                async with conn.transaction():
                    await conn.execute("UPDATE account SET balance = 1000")
                    raise ZeroDivisionError
        await conn.execute("UPDATE account SET balance = balance - 1 WHERE id = 2")
        if kind.savepoints:
            await conn.execute("UPDATE account SET balance = balance - 1 WHERE id = 2")


async def use_begin_by_hand(kind: Kind, db: Database) -> None:
    async with db.connection() as conn:
        await conn.execute("BEGIN")
        await conn.execute("UPDATE account SET balance = 1000")


async def use_a_stream(kind: Kind, db: Database) -> None:
    async with db.connection() as conn, conn.stream("SELECT id FROM account ORDER BY id", batch=1) as rows:
        assert [row async for row in rows] == [(1,), (2,)]


async def use_many_rows(kind: Kind, db: Database) -> None:
    async with db.transaction() as conn:
        await conn.execute_many(kind.sql("UPDATE account SET balance = balance + ? WHERE id = ?"), [(1, 1), (-1, 2)])


@pytest.mark.parametrize("warm", [True, False], ids=["open", "opening"])
@pytest.mark.parametrize(
    "use",
    [use_a_connection, use_a_transaction, use_begin_by_hand, use_a_stream, use_many_rows],
    ids=lambda use: use.__name__,
)
async def test_cancelled_at_every_checkpoint(
    kind: Kind, use: Callable[[Kind, Database], Awaitable[None]], warm: bool
) -> None:
    async def scenario() -> None:
        async with Database(kind.worker, max_size=2) as db:
            if warm:
                with trio.CancelScope(shield=True):
                    await kind.check_every_connection(db, 2)
            try:
                await use(kind, db)
            finally:
                with trio.CancelScope(shield=True):
                    await kind.check_every_connection(db, 2)
                    check_balance(db.pool)

    async def look() -> None:
        async with Database(kind.worker, max_size=1) as db:
            (_, first), (_, second) = await kind.balances(db)
            assert first + second == 0 or use is use_a_connection
            assert first < 1000

    async with Database(kind.worker, max_size=1) as db:
        await kind.set_up(db)
        await db.execute("INSERT INTO account VALUES (1, 0), (2, 0)")
    with trio.fail_after(12 * PATIENCE):
        assert await sweep(scenario, look) > 4


async def test_a_cancelled_transaction_is_over_on_its_own_connection(kind: Kind) -> None:
    async def scenario() -> None:
        async with Database(kind.worker, max_size=1) as db, db.connection() as conn:
            try:
                async with conn.transaction():
                    await conn.execute("UPDATE account SET balance = balance + 1")
            finally:
                with trio.CancelScope(shield=True):
                    # This would be refused within another one.
                    async with conn.transaction():
                        pass

    async with Database(kind.worker, max_size=1) as db:
        await kind.set_up(db)
    assert await sweep(scenario) > 4


async def test_a_hundred_tasks_on_three_connections_a_third_of_them_cancelled(kind: Kind) -> None:
    rng = random.Random(20260712)
    committed = 0

    async def work(db: Database, number: int) -> None:
        nonlocal committed
        for _ in range(3):
            mine = marker()
            assert await db.fetch_value(kind.sql("SELECT CAST(? AS INTEGER)"), (mine,)) == mine
            async with db.transaction() as conn:
                await conn.execute(kind.sql("UPDATE account SET balance = balance + 1 WHERE id = ?"), (number,))
            committed += 1

    async def cancelled(db: Database, number: int) -> None:
        with trio.move_on_after(rng.uniform(0.0, 0.2)):
            await work(db, number)

    async with Database(kind.worker, max_size=3, checkout_timeout=60.0) as db:
        await kind.set_up(db)
        await db.execute_many(kind.sql("INSERT INTO account VALUES (?, ?)"), [(n, 0) for n in range(100)])
        with trio.fail_after(6 * PATIENCE):
            async with trio.open_nursery() as nursery:
                for n in range(100):
                    nursery.start_soon(work if n % 3 else cancelled, db, n)
        await kind.check_every_connection(db, 3)
        check_balance(db.pool)
        assert db.stats.size == 3
        assert sum(balance for _, balance in await kind.balances(db)) == committed
        assert committed >= 66 * 3


async def test_a_frozen_server_holds_nobody_past_the_deadline() -> None:
    with PostgresServer() as own:
        worker = psycopg_worker(own.url, cancel_timeout=0.3, commit_timeout=0.3)
        async with Database(worker, max_size=1, terminate_timeout=0.2) as db:
            await db.fetch_value("SELECT 0")
            with own.frozen(), trio.fail_after(PATIENCE):
                async with db.connection() as conn:
                    with trio.move_on_after(0.1) as scope:
                        await conn.fetch_value("SELECT 1")
                    assert scope.cancelled_caught
                    with pytest.raises(ResourceLost, match="has not come back"):
                        await conn.fetch_value("SELECT 1")
            # Thawed, the statement comes back, and the thread ends with it.
            assert await db.fetch_value("SELECT 2") == 2
            assert db.stats.opened == 2
        await until(lambda: connection_threads() == 0)


async def test_a_commit_without_an_answer_is_unknown() -> None:
    with PostgresServer() as own:
        worker = psycopg_worker(own.url, commit_timeout=0.3)
        async with Database(worker, max_size=1) as db:
            await db.execute("CREATE TABLE t (n int)")
            with pytest.raises(CommitUnknown, match=r"0\.3 s") as caught:
                async with db.transaction() as conn:
                    await conn.execute("INSERT INTO t VALUES (1)")
                    own.freeze()
            own.thaw()
            assert isinstance(caught.value, psycopg.OperationalError)
            # Here it was done.
            with trio.fail_after(PATIENCE):
                while await db.fetch_value("SELECT count(*) FROM t") == 0:
                    pass
            assert db.stats.opened == 2
            with pytest.raises(CommitUnknown, match="lost") as caught:
                async with db.transaction() as conn:
                    await conn.execute("INSERT INTO t VALUES (2)")
                    own.kill()
            assert isinstance(caught.value.__cause__, psycopg.OperationalError)
            own.start()
            assert await db.fetch_value("SELECT count(*) FROM t") == 1
