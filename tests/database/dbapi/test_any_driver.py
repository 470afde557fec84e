import logging
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from nimblepool import ResourceLost, Verdict
from nimblepool.testing import check_balance, check_worker, sweep
from nimblepool_database import CommitUnknown, Database, TransactionLost, Unsupported
from nimblepool_database._dbapi._canceller import Canceller
from nimblepool_database._dbapi._worker import DBAPIWorker
from tests.database.dbapi import slow as driver
from tests.database.dbapi.kind import PATIENCE, connection_threads, until


def worker(slow: driver.Database, **options: Any) -> DBAPIWorker[driver.Connection]:  # noqa: ANN401
    return DBAPIWorker(slow.connect, error=driver.OperationalError, name="slow", **options)


async def test_a_driver_of_which_nothing_is_known_keeps_the_contract(slow: driver.Database) -> None:
    await check_worker(worker(slow))
    assert len({connection.thread for connection in slow.connections}) > 1
    assert all(connection.closed for connection in slow.connections)


async def test_outside_a_transaction_each_statement_is_committed(slow: driver.Database) -> None:
    async with Database(worker(slow), max_size=1) as db, db.connection() as conn:
        await conn.execute("add", (1,))
        assert slow.committed == [1]
        assert await conn.execute_many("add", [(2,), (3,)]) == 0
        assert slow.committed == [1, 2, 3]
        await conn.call(lambda raw: raw.pending.append(4))
        async with conn.stream("rows", (3,), batch=2) as rows:
            assert [row async for row in rows] == [(0,), (1,), (2,)]
        assert slow.committed == [1, 2, 3, 4]
        with pytest.raises(driver.OperationalError):
            await conn.call(fail_after_adding)
        await conn.execute("add", (6,))
    assert slow.committed == [1, 2, 3, 4, 6]


def fail_after_adding(raw: driver.Connection) -> None:
    raw.pending.append(5)
    raise driver.OperationalError


async def test_a_transaction_is_committed_at_its_end_or_not_at_all(slow: driver.Database) -> None:
    async with Database(worker(slow, savepoints=False)) as db:
        async with db.transaction() as conn:
            await conn.execute("add", (1,))
            assert await conn.execute_many("add", [(2,)]) == 0
            assert slow.committed == []
        assert slow.committed == [1, 2]
        with pytest.raises(ZeroDivisionError):
            async with db.transaction() as conn:
                await conn.execute("add", (3,))
                raise ZeroDivisionError
        with pytest.raises(TransactionLost, match="only some of the rows") as caught:
            async with db.transaction() as conn:
                with pytest.raises(IndexError):
                    await conn.execute_many("add", [(4,), ()])
        assert isinstance(caught.value, driver.OperationalError)
        await db.execute("add", (5,))
    assert slow.committed == [1, 2, 5]


async def test_without_a_begin_there_are_no_isolation_levels(slow: driver.Database) -> None:
    async with Database(worker(slow)) as db:
        with pytest.raises(Unsupported, match="slow"):
            async with db.transaction(isolation="serializable"):
                pass
        with pytest.raises(Unsupported):
            async with db.transaction(readonly=True):
                pass
        assert db.stats.opened == 1


async def test_a_statement_that_ends_in_time_keeps_its_connection_though_it_was_cancelled(
    slow: driver.Database,
) -> None:
    async with Database(worker(slow), max_size=1) as db:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(db.execute, "wait")
            await until(slow.waiting.is_set)
            nursery.cancel_scope.cancel()
            slow.slow.set()
        assert await db.fetch_value("count") == 0
        assert db.stats.opened == 1


async def test_a_driver_that_cannot_cancel_keeps_nobody_and_its_connection_is_never_lent_on(
    slow: driver.Database, caplog: pytest.LogCaptureFixture
) -> None:
    async with Database(worker(slow, cancel_timeout=0.1), max_size=1, terminate_timeout=0.1) as db:
        async with db.connection() as conn:
            with trio.fail_after(PATIENCE):
                with trio.move_on_after(0.1) as scope:
                    await conn.execute("wait")
                assert scope.cancelled_caught
                for use in (conn.execute("count"), conn.fetch_one("count"), conn.call(lambda raw: raw)):
                    with pytest.raises(ResourceLost, match="has not come back"):
                        await use
                with pytest.raises(ResourceLost):
                    _ = conn.raw
        for _ in range(3):
            assert await db.fetch_value("count") == 0
        assert db.stats.opened == 2
        first = slow.connections[0]
        assert first.calls[-1] == "wait"
        assert not first.closed
        slow.slow.set()
        # It can be closed only by its own thread.
        await until(lambda: first.calls[-1] == "close")
    check_balance(db.pool)
    await no_threads()


async def no_threads() -> None:
    await until(lambda: connection_threads() == 0)


async def test_a_transaction_whose_statement_does_not_come_back_is_lost(slow: driver.Database) -> None:
    async with Database(worker(slow, cancel_timeout=0.05), max_size=1, terminate_timeout=0.1) as db:
        with pytest.raises(TransactionLost):
            async with db.transaction() as conn:
                await conn.execute("add", (1,))
                with trio.move_on_after(0.05):
                    await conn.execute("wait")
        slow.slow.set()
        await until(lambda: connection_threads() <= 1)
        assert await db.fetch_value("count") == 0
    await no_threads()


async def test_a_cancelled_opening_leaves_nothing(slow: driver.Database) -> None:
    gate = threading.Event()

    def connect() -> driver.Connection:
        gate.wait(10)
        return slow.connect()

    opened = DBAPIWorker(connect, name="slow", cancel_timeout=0.05)
    with trio.move_on_after(0.05) as scope:
        await opened.init()
    assert scope.cancelled_caught
    assert slow.connections == []
    gate.set()
    await no_threads()
    assert [connection.closed for connection in slow.connections] == [True]


async def test_a_commit_that_hangs_is_unknown_and_costs_the_connection(slow: driver.Database) -> None:
    async with Database(worker(slow, commit_timeout=0.05), max_size=1, terminate_timeout=0.1) as db:
        slow.hang_commits = True
        with trio.fail_after(PATIENCE), pytest.raises(CommitUnknown, match=r"0\.05 s") as caught:
            async with db.transaction() as conn:
                await conn.execute("add", (1,))
        assert isinstance(caught.value, driver.OperationalError)
        slow.hang_commits = False
        assert await db.fetch_value("count") == 0
        assert db.stats.opened == 2
        slow.slow.set()
    await no_threads()
    # And here it did happen.
    assert slow.committed == [1]


async def test_a_commit_that_the_database_refuses_comes_out_as_it_is(slow: driver.Database) -> None:
    async with Database(worker(slow), max_size=1) as db:
        slow.refuse_commits = ValueError("a deferred constraint")
        with pytest.raises(ValueError, match="deferred"):
            async with db.transaction() as conn:
                await conn.execute("add", (1,))
        slow.refuse_commits = None
        await db.execute("add", (2,))
        assert slow.committed == [2]
        slow.refuse_commits = driver.InterfaceError("gone")
        with pytest.raises(CommitUnknown):
            async with db.transaction() as conn:
                await conn.execute("add", (3,))
        slow.refuse_commits = None
        assert await db.fetch_value("count") == 1
        assert db.stats.opened == 2


async def test_a_doubtful_error_is_looked_into(slow: driver.Database) -> None:
    async with Database(worker(slow), max_size=1) as db:
        with pytest.raises(driver.OperationalError):
            await db.execute("fail")
        await db.fetch_value("count")
        assert slow.connections[0].calls.count("SELECT 1") == 1
        with pytest.raises(driver.InterfaceError):
            await db.execute("break")
        await db.fetch_value("count")
        assert db.stats.opened == 2
        assert [connection.closed for connection in slow.connections] == [True, False]


async def test_a_doubtful_connection_that_does_not_answer_is_removed(slow: driver.Database) -> None:
    async with Database(worker(slow, ping="break"), max_size=1) as db:
        with pytest.raises(driver.OperationalError):
            await db.execute("fail")
        await db.fetch_value("count")
        assert db.stats.opened == 2


async def test_a_worker_may_judge_for_itself(slow: driver.Database) -> None:
    def judge(connection: driver.Connection, error: BaseException) -> Verdict:
        return Verdict.REFRESH if isinstance(error, driver.OperationalError) else Verdict.OK

    async with Database(worker(slow, judge=judge), max_size=2) as db:
        async with db.connection(), db.connection():
            pass
        with pytest.raises(driver.InterfaceError):
            await db.execute("break")
        assert db.stats.opened == 2
        with pytest.raises(driver.OperationalError):
            await db.execute("fail")
        async with db.connection() as one, db.connection() as two:
            assert await one.fetch_value("count") == await two.fetch_value("count") == 0
        assert db.stats.opened == 4


async def test_without_in_transaction_every_used_connection_is_rolled_back(slow: driver.Database) -> None:
    slow_worker = worker(slow, autocommit=lambda connection: None)
    async with Database(slow_worker, max_size=1) as db:
        await db.fetch_value("count")
        await db.fetch_value("count")
        assert slow.connections[0].calls.count("ROLLBACK") >= 1
        async with db.connection():
            pass
        calls = list(slow.connections[0].calls)
        async with db.connection():
            pass
        assert slow.connections[0].calls == calls


async def test_tasks_that_share_a_connection_are_not_hit_by_each_others_cancellation() -> None:
    """The cancel function is slow, and comes too late for the statement that it was made for."""
    late = threading.Event()

    def cancel(connection: sqlite3.Connection) -> None:
        time.sleep(0.05)
        late.set()
        connection.interrupt()

    def nap(seconds: float) -> int:
        time.sleep(seconds)
        return 1

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(":memory:", isolation_level=None)
        connection.create_function("nap", 1, nap)
        return connection

    count = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300000) SELECT count(*) FROM n"
    slow = DBAPIWorker(connect, autocommit=lambda _: None, cancel=cancel, name="slow")
    async with Database(slow, max_size=1) as db, db.connection() as conn:
        for _ in range(5):
            late.clear()
            async with trio.open_nursery() as nursery:

                async def first() -> None:
                    with trio.move_on_after(0.01):
                        await conn.fetch_value("SELECT nap(0.02)")

                nursery.start_soon(first)
                await trio.sleep(0.005)
                assert await conn.fetch_value(count) == 300000
            assert late.is_set()


async def test_a_cancel_function_that_fails_is_called_again_and_its_words_are_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    attempts: list[int] = []

    def cancel(connection: sqlite3.Connection) -> None:
        attempts.append(1)
        if len(attempts) < 3:
            raise OSError("password=hunter2")
        connection.interrupt()

    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    slow = DBAPIWorker(
        lambda: sqlite3.connect(":memory:", isolation_level=None),
        autocommit=lambda _: None,
        in_transaction=lambda connection: connection.in_transaction,
        cancel=cancel,
        name="slow",
    )
    async with Database(slow, max_size=1) as db:
        with trio.fail_after(PATIENCE), trio.move_on_after(0.02) as scope:
            await db.fetch_value(endless)
        assert scope.cancelled_caught
        assert len(attempts) >= 3
        assert db.stats.opened == 1
    assert "OSError" in caplog.text
    assert "hunter2" not in caplog.text


async def test_nothing_is_cancelled_where_nothing_runs() -> None:
    asked: list[object] = []
    canceller = Canceller(asked.append, "t")
    canceller.ask()
    with canceller.cancellable("connection"):
        pass
    canceller.ask()
    assert asked == []
    assert not canceller.asked


async def use_a_statement(db: Database) -> None:
    await db.execute("add", (1,))


async def use_a_transaction(db: Database) -> None:
    async with db.transaction() as conn:
        await conn.execute("add", (1,))
        await conn.execute("add", (1,))


async def use_a_stream(db: Database) -> None:
    async with db.connection() as conn, conn.stream("rows", (2,), batch=1) as rows:
        assert [row async for row in rows] == [(0,), (1,)]


@pytest.mark.parametrize("use", [use_a_statement, use_a_transaction, use_a_stream], ids=lambda use: use.__name__)
async def test_cancelled_at_every_checkpoint_without_a_cancel_function(
    slow: driver.Database, use: Callable[[Database], Awaitable[None]]
) -> None:
    async def scenario() -> None:
        async with Database(worker(slow), max_size=1) as db:
            try:
                await use(db)
            finally:
                with trio.CancelScope(shield=True):
                    assert await db.fetch_value("count") == len(slow.committed)
                    check_balance(db.pool)

    async def look() -> None:
        assert all(connection.closed and not connection.cursors for connection in slow.connections)
        assert use is not use_a_transaction or len(slow.committed) % 2 == 0

    assert await sweep(scenario, look) > 4
