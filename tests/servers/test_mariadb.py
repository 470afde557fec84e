import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pymysql  # type: ignore[import-untyped] # its stubs are another package
import pytest
import trio
from pymysql.cursors import DictCursor  # type: ignore[import-untyped] # likewise

from nimblepool import ResourceLost
from nimblepool.testing import check_balance, check_worker, sweep
from nimblepool_database import CommitUnknown, Connection, Database, TransactionLost
from nimblepool_database._dbapi._pymysql import pymysql_worker
from nimblepool_database._dbapi._urls import mysql_from_url
from tests.servers.ledger import Ledger
from tests.servers.mariadb import DATABASE, USER, MariaDBServer
from tests.servers.process import until

PATIENCE = 15.0
"""Seconds that nothing here should need."""
ENDLESS = "SELECT count(*) FROM seq_1_to_1000000000 a JOIN seq_1_to_1000000000 b WHERE a.seq * b.seq % 7 = 3"


def connection_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("dbapi ")]


@pytest.fixture(autouse=True)
def no_thread_of_a_connection_is_left() -> Iterator[None]:
    yield
    assert connection_threads() == []


async def set_up(db: Database) -> None:
    await db.execute("DROP TABLE IF EXISTS t")
    await db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY) ENGINE=InnoDB")


def running(server: MariaDBServer, word: str) -> list[tuple[object, ...]]:
    """Return the sessions of the server that are at a statement with this word."""
    return [row for row in server.ask("SHOW FULL PROCESSLIST") if word in str(row[7]) and row[4] == "Query"]


async def test_it_keeps_the_contract_of_a_worker(mariadb: MariaDBServer) -> None:
    await check_worker(pymysql_worker(**mariadb.arguments))


async def test_statements_and_rows(mariadb: MariaDBServer) -> None:
    async with Database(pymysql_worker(**mariadb.arguments), max_size=2) as db:
        await set_up(db)
        assert await db.execute("INSERT INTO t VALUES (%s)", (1,)) == 1
        assert await db.execute_many("INSERT INTO t VALUES (%s)", [(n,) for n in range(2, 2502)]) == 2500
        assert await db.execute("SELECT * FROM t") == 0
        assert await db.fetch_all("SELECT n FROM t WHERE n < %(n)s ORDER BY n", {"n": 3}) == [(1,), (2,)]
        assert await db.fetch_one("INSERT INTO t VALUES (5000), (5001) RETURNING n") == (5000,)
        assert await db.execute("INSERT INTO t VALUES (6000), (6001) RETURNING n") == 2
        assert await db.fetch_value("SELECT count(*) FROM t") == 2505
        assert await db.fetch_value("SELECT '100%'") == "100%"
        with pytest.raises(pymysql.IntegrityError):
            await db.execute_many("INSERT INTO t VALUES (%s)", [(7000,), (1,)])
        assert await db.fetch_value("SELECT count(*) FROM t") == 2505
    check_balance(db.pool)


async def test_a_url(mariadb: MariaDBServer) -> None:
    url = f"mysql://{USER}:{mariadb.password}@127.0.0.1:{mariadb.port}/{DATABASE}?charset=utf8mb4"
    async with Database(mysql_from_url(url)) as db:
        assert await db.fetch_value("SELECT 'é'") == "é"


async def test_the_cursor_class_is_kept_and_serves_streams(mariadb: MariaDBServer) -> None:
    async with Database(pymysql_worker(**mariadb.arguments, cursorclass=DictCursor)) as db, db.connection() as conn:
        assert await conn.fetch_one("SELECT 1 AS a") == {"a": 1}
        assert await conn.fetch_value("SELECT 2 AS a") == 2
        async with conn.stream("SELECT seq FROM seq_1_to_3", batch=2) as rows:
            assert [row async for row in rows] == [{"seq": 1}, {"seq": 2}, {"seq": 3}]


async def test_transactions_and_savepoints(mariadb: MariaDBServer) -> None:
    async with Database(pymysql_worker(**mariadb.arguments), max_size=1) as db:
        await set_up(db)
        async with db.transaction() as conn:
            await conn.execute("INSERT INTO t VALUES (1)")
            with pytest.raises(ZeroDivisionError):
                async with conn.transaction():
                    await conn.execute("INSERT INTO t VALUES (2)")
                    raise ZeroDivisionError
            async with conn.transaction():
                await conn.execute("INSERT INTO t VALUES (3)")
            with pytest.raises(pymysql.IntegrityError):
                await conn.execute_many("INSERT INTO t VALUES (%s)", [(4,), (1,)])
        async with db.connection() as conn:
            await conn.execute("BEGIN")
            await conn.execute("INSERT INTO t VALUES (5)")
        assert await db.fetch_all("SELECT n FROM t ORDER BY n") == [(1,), (3,)]
        assert db.stats.opened == 1


async def test_isolation_levels_last_for_one_transaction(mariadb: MariaDBServer) -> None:
    level = "SELECT trx_isolation_level FROM information_schema.innodb_trx WHERE trx_mysql_thread_id = connection_id()"
    async with Database(pymysql_worker(**mariadb.arguments), max_size=1) as db:
        await set_up(db)
        async with db.transaction(isolation="serializable") as conn:
            # InnoDB knows of a transaction from its first access to a table.
            await conn.fetch_all("SELECT * FROM t")
            assert await conn.fetch_value(level) == "SERIALIZABLE"
        async with db.transaction() as conn:
            await conn.fetch_all("SELECT * FROM t")
            # The view shows what it showed before if it was asked within the last tenth of a second.
            await trio.sleep(0.15)
            assert await conn.fetch_value(level) == "REPEATABLE READ"
        with pytest.raises(pymysql.OperationalError, match="READ ONLY"):
            async with db.transaction(isolation="read committed", readonly=True) as conn:
                await conn.execute("INSERT INTO t VALUES (1)")
        assert await db.execute("INSERT INTO t VALUES (1)") == 1


@pytest.mark.parametrize("sql", ["SELECT SLEEP(61)", ENDLESS], ids=["sleeping", "computing"])
async def test_cancelling_kills_the_query_in_the_server(mariadb: MariaDBServer, sql: str) -> None:
    async with Database(pymysql_worker(**mariadb.arguments), max_size=1) as db:
        with trio.fail_after(PATIENCE):
            async with db.transaction() as conn:
                session = await conn.fetch_value("SELECT connection_id()")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(conn.fetch_all, sql)
                    await until(lambda: running(mariadb, sql) != [])
                    nursery.cancel_scope.cancel()
                assert running(mariadb, sql) == []
                assert await conn.fetch_value("SELECT connection_id()") == session
        assert await db.fetch_value("SELECT connection_id()") == session


async def test_cancelling_a_wait_for_a_lock(mariadb: MariaDBServer) -> None:
    async with Database(pymysql_worker(**mariadb.arguments), max_size=2) as db:
        await set_up(db)
        await db.execute("INSERT INTO t VALUES (1)")
        async with db.transaction() as holder:
            await holder.execute("UPDATE t SET n = 2")
            with trio.fail_after(PATIENCE), trio.move_on_after(0.1) as scope:
                await db.execute("UPDATE t SET n = 3 WHERE n = 1")
            assert scope.cancelled_caught
        assert await db.fetch_all("SELECT n FROM t") == [(2,)]
        assert db.stats.opened == 2


@pytest.mark.parametrize("read", [0, 1, 1000])
async def test_a_long_stream_is_left_at_once(mariadb: MariaDBServer, read: int) -> None:
    async with Database(pymysql_worker(**mariadb.arguments), max_size=1) as db:
        await set_up(db)
        with trio.fail_after(PATIENCE):
            async with db.transaction() as conn:
                await conn.execute("INSERT INTO t VALUES (1)")
                async with conn.stream("SELECT seq FROM seq_1_to_10000000000", batch=10) as rows:
                    for n in range(read):
                        assert await anext(aiter(rows)) == (n + 1,)
                    with pytest.raises(RuntimeError, match="a stream is open"):
                        await conn.fetch_value("SELECT 1")
                assert await conn.fetch_value("SELECT 7") == 7
        assert await db.fetch_value("SELECT count(*) FROM t") == 1
        assert db.stats.opened == 1


async def test_a_deadlock_loses_the_transaction(mariadb: MariaDBServer) -> None:
    async with Database(pymysql_worker(**mariadb.arguments), max_size=2) as db:
        await set_up(db)
        await db.execute_many("INSERT INTO t VALUES (%s)", [(1,), (2,)])
        outcomes: list[type[BaseException] | None] = []
        both = [trio.Event(), trio.Event()]

        async def work(me: int) -> None:
            try:
                async with db.transaction() as conn:
                    await conn.execute("UPDATE t SET n = n + 10 WHERE n = %s", (1 + me,))
                    both[me].set()
                    await both[1 - me].wait()
                    await go_on(conn, me)
            except TransactionLost as error:
                assert isinstance(error, pymysql.OperationalError)  # noqa: PT017 - only one of the two raises
                outcomes.append(TransactionLost)
            else:
                outcomes.append(None)

        async def go_on(conn: Connection, me: int) -> None:
            try:
                await conn.execute("UPDATE t SET n = n + 10 WHERE n = %s", (2 - me,))
            except pymysql.OperationalError as error:
                assert error.args[0] == 1213  # noqa: PT017 - likewise
                # Whoever goes on all the same would be in autocommit mode.
                await conn.execute("INSERT INTO t VALUES (99)")

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work, 0)
                nursery.start_soon(work, 1)
        assert sorted(map(str, outcomes)) == sorted(map(str, [None, TransactionLost]))
        assert await db.fetch_all("SELECT n FROM t ORDER BY n") == [(11,), (12,)]


async def test_ddl_commits_and_the_transaction_says_so(mariadb: MariaDBServer) -> None:
    async with Database(pymysql_worker(**mariadb.arguments)) as db:
        await set_up(db)
        with pytest.raises(TransactionLost):
            async with db.transaction() as conn:
                await conn.execute("CREATE OR REPLACE TABLE u (n INTEGER)")
                await conn.execute("INSERT INTO t VALUES (1)")
        assert await db.fetch_value("SELECT count(*) FROM t") == 0


async def test_a_session_that_was_killed_is_replaced(mariadb: MariaDBServer) -> None:
    async with Database(pymysql_worker(**mariadb.arguments), max_size=1, ping_after=0.0) as db:
        session = await db.fetch_value("SELECT connection_id()")
        mariadb.ask(f"KILL {session}")
        assert await db.fetch_value("SELECT connection_id()") != session


async def test_cancelled_at_every_checkpoint(mariadb: MariaDBServer) -> None:
    async def scenario() -> None:
        async with Database(pymysql_worker(**mariadb.arguments), max_size=1) as db:
            try:
                async with db.transaction() as conn:
                    await conn.execute("INSERT INTO t VALUES (1)")
                    async with conn.transaction():
                        await conn.execute("UPDATE t SET n = 2")
                    async with conn.stream("SELECT seq FROM seq_1_to_100", batch=60) as rows:
                        assert len([row async for row in rows]) == 100
                    await conn.execute("DELETE FROM t")
            finally:
                with trio.CancelScope(shield=True):
                    assert await db.fetch_all("SELECT n FROM t") == []
                    check_balance(db.pool)

    async with Database(pymysql_worker(**mariadb.arguments), max_size=1) as db:
        await set_up(db)
    with trio.fail_after(4 * PATIENCE):
        assert await sweep(scenario) > 10


async def test_a_frozen_server_keeps_neither_client_nor_thread(own_mariadb: MariaDBServer) -> None:
    worker = pymysql_worker(**own_mariadb.arguments, cancel_timeout=0.3, commit_timeout=0.3)
    async with AsyncExitStack() as stack:
        with trio.fail_after(PATIENCE):
            async with Database(worker, max_size=2) as db:
                await set_up(db)
                with pytest.raises(CommitUnknown):
                    async with db.transaction() as conn, db.connection() as other:
                        await conn.execute("INSERT INTO t VALUES (1)")
                        stack.enter_context(own_mariadb.frozen())
                        with trio.move_on_after(0.1) as scope:
                            await other.fetch_value("SELECT 1")
                        assert scope.cancelled_caught
                        with pytest.raises(ResourceLost):
                            await other.fetch_value("SELECT 1")
            # Their sockets were shut down: the server is frozen still.
            await until(lambda: connection_threads() == [])


async def test_killed_and_restarted_under_load_it_loses_nothing(own_mariadb: MariaDBServer) -> None:
    worker = pymysql_worker(**own_mariadb.arguments)
    async with Database(worker, max_size=6, checkout_timeout=20.0) as db:
        ledger = Ledger(db, "%s", pymysql.Error)
        await ledger.set_up("ENGINE=InnoDB")
        await ledger.work_while(own_mariadb.restart, rounds=6)
        await ledger.check()
        assert ledger.failed
        assert ledger.cancelled
        await ledger.check_capacity(6)
        check_balance(db.pool)
    assert own_mariadb.ask("SELECT count(*) FROM information_schema.innodb_trx") == [(0,)]
