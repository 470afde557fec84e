import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Unpack

import pytest
import trio

from nimblepool import (
    CheckoutTimeout,
    LeaseExpired,
    LeaseRevoked,
    PoolOptions,
    PoolUnavailable,
    Reason,
    Verdict,
)
from nimblepool.testing import check_balance, sweep
from nimblepool_database import (
    Connection,
    Database,
    DatabaseWorker,
    SQLiteResource,
    SQLiteWorker,
    TransactionLost,
    Unsupported,
    sqlite3_worker,
)
from tests.database.postgres.server import PostgresServer

INCREMENT = "UPDATE tally SET n = n + 1"


async def n(db: Database) -> object:
    return await db.fetch_value("SELECT n FROM tally")


@asynccontextmanager
async def undone(url: str, **options: Unpack[PoolOptions]) -> AsyncGenerator[Database, None]:
    """A sandbox in a database, of which nothing must be left."""
    async with Database(url, **options) as db:
        async with db.sandbox():
            yield db
        assert await db.fetch_all("SELECT n FROM tally") == [(0,)]
        check_balance(db.pool)
        check_balance(db.writer_pool)


async def test_nothing_is_left_of_what_happened_in_a_sandbox(db_counter: str) -> None:
    async with undone(db_counter) as db:
        await db.execute(INCREMENT)
        async with db.transaction() as conn:
            await conn.execute(INCREMENT)
        async with db.connection() as conn:
            await conn.execute_many("INSERT INTO tally VALUES (7)", [(), ()])
        await db.execute("CREATE TABLE t (a INTEGER)")
        assert await db.fetch_all("SELECT n FROM tally ORDER BY n") == [(2,), (7,), (7,)]


async def test_a_transaction_is_kept_or_undone_as_in_production(db_counter: str) -> None:
    async with undone(db_counter) as db:
        with pytest.raises(KeyError):
            async with db.transaction() as conn:
                await conn.execute(INCREMENT)
                raise KeyError
        assert await n(db) == 0
        async with db.transaction(isolation="serializable") as conn:
            await conn.execute(INCREMENT)
            with pytest.raises(KeyError):
                async with conn.transaction():
                    await conn.execute("UPDATE tally SET n = 100")
                    raise KeyError
        assert await n(db) == 1


async def test_a_statement_that_fails_by_itself_spoils_nothing(db_counter: str) -> None:
    async with undone(db_counter) as db:
        await db.execute(INCREMENT)
        for use in (db.execute, db.fetch_all, db.fetch_one, db.fetch_value):
            with pytest.raises(Exception, match="nowhere"):
                await use("SELECT * FROM nowhere")
        with pytest.raises(Exception, match="nowhere"):
            await db.execute_many("INSERT INTO nowhere VALUES (1)", [()])
        with pytest.raises(Exception, match="nowhere"):
            async with db.stream("SELECT * FROM nowhere"):
                pass
        async with db.connection() as conn:
            await conn.execute(INCREMENT)
            with pytest.raises(Exception, match="nowhere"):
                await conn.execute("SELECT * FROM nowhere")
            await conn.execute(INCREMENT)
        assert await n(db) == 3


async def test_a_task_may_use_the_database_inside_its_own_transaction(db_counter: str) -> None:
    async with undone(db_counter, checkout_timeout=1.0) as db:
        async with db.transaction() as conn:
            await conn.execute(INCREMENT)
            await db.execute(INCREMENT)
            async with db.connection() as other:
                assert await other.fetch_value("SELECT n FROM tally") == 2
                with pytest.raises(KeyError):
                    async with db.transaction() as third:
                        await third.execute(INCREMENT)
                        raise KeyError
                with pytest.raises(Exception, match="nowhere"):
                    await db.execute("SELECT * FROM nowhere")
            with pytest.raises(LeaseExpired):
                await other.execute(INCREMENT)
            await conn.execute(INCREMENT)
        assert await n(db) == 3


async def test_tasks_take_turns(db_counter: str) -> None:
    order: list[int] = []

    async def increment(db: Database, number: int) -> None:
        async with db.transaction() as conn:
            order.append(number)
            value: int = await conn.fetch_value("SELECT n FROM tally")
            await trio.lowlevel.checkpoint()
            await conn.execute(f"UPDATE tally SET n = {value + 1}")

    async with undone(db_counter) as db:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(increment, db, number)
                await trio.testing.wait_all_tasks_blocked()
        assert order == list(range(20))
        assert await n(db) == 20


async def test_tasks_started_inside_a_transaction_join_it_one_after_the_other(db_counter: str) -> None:
    async def increment(db: Database) -> None:
        async with db.transaction() as conn:
            value: int = await conn.fetch_value("SELECT n FROM tally")
            await trio.lowlevel.checkpoint()
            await conn.execute(f"UPDATE tally SET n = {value + 1}")

    async with undone(db_counter, checkout_timeout=20.0) as db:
        with pytest.raises(KeyError):
            async with db.transaction():
                async with trio.open_nursery() as nursery:
                    for _ in range(10):
                        nursery.start_soon(increment, db)
                assert await n(db) == 10
                raise KeyError
        assert await n(db) == 0


async def test_a_task_that_outlives_the_transaction_it_was_started_in_waits_for_its_turn(db_counter: str) -> None:
    async def later(db: Database) -> None:
        assert await n(db) == 1
        await db.execute(INCREMENT)

    async with undone(db_counter) as db:
        async with trio.open_nursery() as nursery, db.transaction() as conn:
            nursery.start_soon(later, db)
            await trio.testing.wait_all_tasks_blocked()
            await conn.execute(INCREMENT)
        assert await n(db) == 2


async def test_waiting_for_a_turn_ends_in_time_and_says_who_has_it(db_counter: str) -> None:
    async def hold(db: Database, task_status: trio.TaskStatus[None]) -> None:
        async with db.transaction():
            task_status.started()
            await trio.sleep_forever()

    async def hold_a_share(db: Database, task_status: trio.TaskStatus[None]) -> None:
        await hold(db, task_status)

    async with undone(db_counter, checkout_timeout=0.1) as db:
        async with trio.open_nursery() as nursery:
            await nursery.start(hold, db)
            with pytest.raises(CheckoutTimeout, match="hold"):
                await n(db)
            nursery.cancel_scope.cancel()
        async with db.connection(), trio.open_nursery() as nursery:
            await nursery.start(hold_a_share, db)
            with pytest.raises(CheckoutTimeout, match="a sandbox has one connection, and task"):
                await n(db)
            nursery.cancel_scope.cancel()
        assert await n(db) == 0


@pytest.fixture
async def db(db_counter: str) -> AsyncIterator[Database]:
    async with Database(db_counter, checkout_timeout=1.0) as db, db.sandbox():
        yield db


@pytest.fixture
async def conn(db: Database) -> AsyncIterator[Connection]:
    async with db.transaction() as conn:
        await conn.execute(INCREMENT)
        yield conn


async def test_a_test_joins_the_transaction_of_its_fixture(db: Database, conn: Connection) -> None:
    await conn.execute(INCREMENT)
    await db.execute(INCREMENT)
    async with db.transaction() as other:
        await other.execute(INCREMENT)
    assert await conn.fetch_value("SELECT n FROM tally") == 4


async def test_sandboxes_stand_inside_each_other(db_counter: str) -> None:
    async with undone(db_counter) as db:
        await db.execute(INCREMENT)
        for _ in range(2):
            async with db.sandbox():
                async with db.transaction() as conn:
                    await conn.execute(INCREMENT)
                    await db.execute(INCREMENT)
                with pytest.raises(Exception, match="nowhere"):
                    await db.execute("SELECT * FROM nowhere")
                assert await n(db) == 3
        assert await n(db) == 1


async def test_a_stream_and_statements_beside_it(db_counter: str) -> None:
    async with undone(db_counter) as db:
        await db.execute("INSERT INTO tally VALUES (1), (2), (3)")
        async with db.connection() as conn, conn.stream("SELECT n FROM tally ORDER BY n", batch=1) as rows:
            async for row in rows:
                await conn.execute(f"INSERT INTO tally VALUES ({row[0] + 10})")
                if row[0] == 3:
                    break
        assert await db.fetch_value("SELECT sum(n) FROM tally WHERE n >= 10") == 46


@pytest.mark.parametrize(
    "sql",
    [
        *("BEGIN", "commit", " end", "ROLLBACK", "rollback work", "START  TRANSACTION", "PREPARE TRANSACTION 'x'"),
        *("/* route=\n'x' */ COMMIT", "-- ROLLBACK TO x\n/**/commit"),
    ],
)
async def test_ending_the_sandboxes_transaction_by_hand_is_refused(db_counter: str, sql: str) -> None:
    async with undone(db_counter) as db:
        with pytest.raises(Unsupported, match="by hand is not supported in a sandbox"):
            await db.execute(sql)
        async with db.transaction() as conn:
            await conn.execute("SAVEPOINT mine")
            await conn.execute(INCREMENT)
            await conn.execute("ROLLBACK TO mine")
            with pytest.raises(Unsupported):
                await conn.fetch_all(sql)
            await conn.execute(INCREMENT)
        assert await n(db) == 1


async def test_nothing_of_a_sandbox_is_seen_outside_and_afterwards_all_is_as_before(counter: str) -> None:
    async with Database(counter) as db, Database(counter) as outside:
        async with db.sandbox():
            await db.execute(INCREMENT)
            assert await n(db) == 1
            assert await n(outside) == 0
        async with db.transaction() as conn:
            await conn.execute(INCREMENT)
        assert await n(outside) == 1


class Recording(DatabaseWorker[SQLiteResource]):
    """Keeps books, as a worker may, of whether a client has the connection."""

    def __init__(self, path: Path) -> None:
        self.real = SQLiteWorker(path)
        self.events: list[str] = []

    async def init(self) -> SQLiteResource:
        return await self.real.init()

    async def terminate(self, resource: SQLiteResource, reason: Reason) -> None:
        await self.real.terminate(resource, reason)

    def checkout(self, resource: SQLiteResource, request: object) -> Verdict:
        self.events.append("out")
        return Verdict.OK

    def checkin(self, resource: SQLiteResource, error: BaseException | None) -> Verdict:
        self.events.append("in")
        return self.real.checkin(resource, error)

    async def reset(self, resource: SQLiteResource) -> None:
        await self.real.reset(resource)


async def test_the_worker_never_sees_a_connection_in_use_that_was_given_back(counter: str, path: Path) -> None:
    worker = Recording(path)
    async with Database(worker, max_size=1) as db:
        async with db.sandbox():
            for turn in range(1, 4):
                await db.execute(INCREMENT)
                assert worker.events == ["out"] + ["in", "out"] * turn
            async with db.sandbox():
                await db.execute(INCREMENT)
                assert worker.events[-1] == "out"
        assert worker.events[-1] == "in"
        assert await n(db) == 0
    assert worker.events[::2] == ["out"] * (len(worker.events) // 2)


async def test_a_sandbox_on_a_blocking_driver(counter: str, path: Path) -> None:
    async with Database(sqlite3_worker(str(path)), max_size=2) as db:
        async with db.sandbox():
            async with db.transaction() as conn:
                await conn.execute(INCREMENT)
                await db.execute(INCREMENT)
            with pytest.raises(sqlite3.OperationalError, match="nowhere"):
                await db.execute("SELECT * FROM nowhere")
            assert await n(db) == 2
        assert await n(db) == 0


async def test_copy_and_pipeline_in_a_sandbox(postgres: PostgresServer) -> None:
    async with Database(postgres.url) as db:
        async with db.sandbox():
            await db.execute("CREATE TABLE sandboxed (n INTEGER)")
            async with db.copy("COPY sandboxed FROM STDIN") as copy:
                await copy.write_row((1,))
            async with db.pipeline() as conn:
                await conn.execute("INSERT INTO sandboxed VALUES (2)")
                await conn.execute("INSERT INTO sandboxed VALUES (3)")
            with pytest.raises(Exception, match="nowhere"):
                async with db.copy("COPY nowhere FROM STDIN"):
                    pass
            with pytest.raises(KeyError):
                async with db.copy("COPY sandboxed FROM STDIN") as copy:
                    await copy.write_row((4,))
                    raise KeyError
            assert await db.fetch_all("SELECT n FROM sandboxed ORDER BY n") == [(1,), (2,), (3,)]
        assert await db.fetch_value("SELECT to_regclass('sandboxed')") is None


async def test_a_servers_connection_that_is_killed_in_a_sandbox_says_so(postgres: PostgresServer) -> None:
    async with Database(postgres.url) as db, Database(postgres.url) as outside:
        async with db.sandbox():
            pid = await db.fetch_value("SELECT pg_backend_pid()")
            await outside.fetch_value("SELECT pg_terminate_backend(%s, 5000)", (pid,))
            with pytest.raises(Exception, match=r".") as caught:
                await db.fetch_value("SELECT 1")
            assert not isinstance(caught.value, CheckoutTimeout)
            with pytest.raises(PoolUnavailable) as unavailable:
                await db.fetch_value("SELECT 1")
            assert isinstance(unavailable.value.__cause__, TransactionLost)
        assert await db.fetch_value("SELECT 1") == 1


async def test_a_sandbox_in_memory() -> None:
    async with Database("sqlite:///:memory:") as db:
        await db.execute("CREATE TABLE tally (n INTEGER)")
        async with db.sandbox():
            await db.execute("INSERT INTO tally VALUES (1)")
            assert await n(db) == 1
        assert await n(db) is None


async def test_a_sandbox_whose_connection_is_lost_says_so(counter: str) -> None:
    async with Database(counter) as db:
        async with db.sandbox():
            await db.execute(INCREMENT)
            with pytest.raises(sqlite3.ProgrammingError):
                async with db.connection() as conn:
                    await conn.call(sqlite3.Connection.close)
            with pytest.raises(PoolUnavailable) as caught:
                await n(db)
            assert isinstance(caught.value.__cause__, TransactionLost)
        assert await n(db) == 0


async def test_sandboxes_that_overlap_are_refused(counter: str) -> None:
    first_may_end = trio.Event()

    async def first(db: Database, task_status: trio.TaskStatus[None]) -> None:
        with pytest.raises(RuntimeError, match="enter and leave them in one task"):
            async with db.sandbox():
                task_status.started()
                await first_may_end.wait()

    async with Database(counter, close_grace=0.05) as db:
        async with trio.open_nursery() as nursery:
            await nursery.start(first, db)
            with pytest.raises(LeaseRevoked):
                async with db.sandbox():
                    await db.execute(INCREMENT)
                    first_may_end.set()
                    await trio.sleep_forever()
        assert await n(db) == 0
        await db.execute(INCREMENT)
        assert await n(db) == 1


async def test_what_the_sandboxes_block_raises_comes_out_as_it_is(db_counter: str) -> None:
    with pytest.raises(KeyError):
        async with undone(db_counter) as db:
            await db.execute(INCREMENT)
            raise KeyError
    async with Database(db_counter) as db:
        assert await n(db) == 0


async def test_a_sandbox_cancelled_anywhere_leaves_nothing(db_counter: str) -> None:
    async with Database(db_counter) as db:

        async def use() -> None:
            async with db.sandbox():
                await db.execute(INCREMENT)
                async with db.transaction() as conn:
                    await conn.execute(INCREMENT)
                    await db.execute(INCREMENT)
                assert await n(db) == 3

        async def check() -> None:
            assert await n(db) == 0

        await check()
        assert await sweep(use, check) > 10
        check_balance(db.pool)
        check_balance(db.writer_pool)


async def test_a_client_cancelled_anywhere_in_a_sandbox_undoes_only_its_own(db_counter: str) -> None:
    done = 0
    async with undone(db_counter, checkout_timeout=10.0) as db:

        async def use() -> None:
            nonlocal done
            async with db.transaction() as conn:
                await conn.execute(INCREMENT)
                await db.execute(INCREMENT)
                async with conn.transaction():
                    await conn.execute(INCREMENT)
            done += 3

        async def check() -> None:
            assert await n(db) == done

        assert await sweep(use, check) > 10
