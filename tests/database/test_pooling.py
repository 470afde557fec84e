import gc
import logging
import sqlite3
import threading
from pathlib import Path

import pytest
import trio

from nimblepool import LeaseExpired, LeaseRevoked, PoolError, PoolOptions, PoolUnavailable, open_pool
from nimblepool_database import CommitUnknown, Database, SQLiteBusy, SQLiteCommitUnknown, SQLiteWorker
from nimblepool_database._transaction import Nesting


def sqlite_threads() -> int:
    return sum(thread.name.startswith("sqlite ") for thread in threading.enumerate())


async def test_each_connection_has_a_thread_and_none_is_left(url: str) -> None:
    before = sqlite_threads()
    async with Database(url, min_size=5, max_size=5) as db:
        await db.pool.wait_ready(4)
        await db.writer_pool.wait_ready(1)
        assert sqlite_threads() - before == 5
    assert sqlite_threads() == before
    assert db.stats.opened == db.stats.closed == 5


def test_a_second_run_of_trio(url: str) -> None:
    async def use() -> object:
        async with Database(url) as db:
            return await db.fetch_value("SELECT 42")

    assert trio.run(use) == trio.run(use) == 42


async def test_the_worker_alone(path: Path) -> None:
    async with (
        open_pool(SQLiteWorker(path, busy_timeout=1.0), max_size=2) as pool,
        pool.checkout() as lease,
    ):
        assert await lease.resource.fetch_all("SELECT 1, 2") == [(1, 2)]
        await lease.resource.begin()
        await lease.resource.execute("CREATE TABLE t (a)")
        with pytest.raises(sqlite3.OperationalError, match="within a transaction"):
            await lease.resource.begin()
        await lease.resource.commit()
        assert not lease.resource.in_transaction


async def test_a_database_over_a_worker(path: Path) -> None:
    async with Database(SQLiteWorker(path), max_size=2) as db:
        assert await db.fetch_value("SELECT 1") == 1


async def test_a_users_error_keeps_the_connection(url: str) -> None:
    async with Database(url, max_size=1) as db:
        with pytest.raises(ValueError, match="mine"):
            async with db.connection():
                raise ValueError("mine")
        with pytest.raises(sqlite3.IntegrityError):
            async with db.connection():
                raise sqlite3.IntegrityError
        await db.execute("SELECT 1")
        assert (db.stats.opened, db.stats.closed) == (1, 0)


async def test_a_closed_connection_is_replaced(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with Database(url, max_size=1) as db:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            async with db.connection() as conn:
                await conn.call(sqlite3.Connection.close)
                await conn.fetch_value("SELECT 1")
        async with db.connection() as conn:
            await conn.call(sqlite3.Connection.close)
        assert await db.fetch_value("SELECT 1") == 1
        assert db.stats.opened == 3
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def damage(path: Path) -> None:
    blob = bytearray(path.read_bytes())
    blob[4096:] = b"\xff" * (len(blob) - 4096)
    path.write_bytes(blob)


async def test_a_damaged_file_costs_the_connection_that_finds_it(url: str, path: Path) -> None:
    async with Database(url, max_size=1) as db:
        await db.execute("CREATE TABLE t (a)")
        await db.execute_many("INSERT INTO t VALUES (?)", [("x" * 500,)] * 100)
        await db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    damage(path)
    async with Database(url, max_size=1) as db:
        async with db.connection() as conn:
            with pytest.raises(sqlite3.DatabaseError):
                await conn.fetch_all("SELECT * FROM t")
        assert await db.fetch_value("SELECT 1") == 1
        assert db.stats.opened == 2


async def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    async with Database(f"sqlite:///{tmp_path}/no/such/directory.db") as db:
        with pytest.raises(PoolUnavailable) as caught:
            await db.execute("SELECT 1")
        assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
        assert caught.value.__cause__.__notes__ == [f"the database is {tmp_path}/no/such/directory.db"]
    assert sqlite_threads() == 0


async def test_a_file_that_is_no_database(path: Path) -> None:
    await trio.Path(path).write_bytes(b"not a database" * 1000)
    async with Database(f"sqlite:///{path}") as db:
        with pytest.raises(PoolUnavailable) as caught:
            await db.execute("SELECT 1")
        assert isinstance(caught.value.__cause__, sqlite3.DatabaseError)
    assert sqlite_threads() == 0


async def test_an_opening_that_is_cancelled_leaves_nothing(path: Path) -> None:
    worker = SQLiteWorker(path)
    outside = sqlite3.connect(path, isolation_level=None)
    outside.execute("CREATE TABLE t (a)")
    # The opening waits: it cannot change the journal mode of a locked file.
    outside.execute("BEGIN EXCLUSIVE")
    with trio.move_on_after(0.05) as scope:
        await worker.init()
    assert scope.cancelled_caught
    assert sqlite_threads() == 0
    outside.close()
    gc.collect()


async def test_a_ping_reads(path: Path) -> None:
    worker = SQLiteWorker(path)
    resource = await worker.init()
    await worker.ping(resource)
    await resource.call(sqlite3.Connection.close)
    with pytest.raises(sqlite3.ProgrammingError):
        await worker.ping(resource)
    await resource.close()


async def test_a_commit_that_does_not_come_back(path: Path) -> None:
    gate = threading.Event()

    def wait_at_commit(raw: sqlite3.Connection) -> None:
        # A disk that hangs, so to speak: the trace runs in the middle of the thread's COMMIT.
        raw.set_trace_callback(lambda sql: gate.wait(10) and None if sql == "COMMIT" else None)

    async with Database(SQLiteWorker(path, commit_timeout=0.05), max_size=1, checkout_timeout=10.0) as db:
        await db.execute("CREATE TABLE t (a)")
        with pytest.raises(CommitUnknown) as caught:
            async with db.transaction() as conn:
                await conn.call(wait_at_commit)
                await conn.execute("INSERT INTO t VALUES (1)")
        gate.set()
        assert isinstance(caught.value, SQLiteCommitUnknown)
        # This connection is gone; with the next one the writer's turn is free.
        async with db.transaction() as conn:
            assert await conn.fetch_value("SELECT count(*) FROM t") in {0, 1}
        assert db.stats.opened == 2


async def test_closing_interrupts_what_still_runs(path: Path) -> None:
    resource = await SQLiteWorker(path).init()

    async def endless() -> None:
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            await resource.fetch_all(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
            )

    with trio.fail_after(10.0):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(endless)
            await trio.testing.wait_all_tasks_blocked()
            await resource.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        await resource.execute("SELECT 1")


async def test_a_connection_that_is_closing_refuses(path: Path) -> None:
    resource = await SQLiteWorker(path).init()
    gate = threading.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(resource.call, lambda _: gate.wait(10))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(resource.close)
        await trio.testing.wait_all_tasks_blocked(0.01)
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            await resource.execute("SELECT 1")
        gate.set()


async def test_a_transaction_that_outlives_the_pool_is_not_committed(counter: str) -> None:
    ended: list[BaseException] = []

    async def outlive(db: Database, begun: trio.Event) -> None:
        try:
            async with db.transaction() as conn:
                await conn.execute("UPDATE tally SET n = 1")
                begun.set()
                await trio.sleep_forever()
        except PoolError as error:
            ended.append(error)

    async with trio.open_nursery() as nursery:
        begun = trio.Event()
        async with Database(counter, close_grace=0.05) as db:
            nursery.start_soon(outlive, db, begun)
            await begun.wait()
    assert [type(error) for error in ended] == [LeaseRevoked]
    async with Database(counter) as db:
        assert await db.fetch_value("SELECT n FROM tally") == 0


async def test_a_transaction_that_outlives_its_lease_is_not_committed(counter: str) -> None:
    async with Database(counter, max_size=1) as db:
        with pytest.raises(LeaseExpired):
            async with db.pool.checkout() as lease, Nesting(lease).block():
                await lease.resource.execute("UPDATE tally SET n = 1")
                lease.release()
        assert await db.fetch_value("SELECT n FROM tally") == 0
        assert db.stats.opened == 1


async def test_in_memory(url: str) -> None:
    async with Database("sqlite:///:memory:") as db:
        await db.execute("CREATE TABLE t (a)")
        async with trio.open_nursery() as nursery:
            for n in range(20):
                nursery.start_soon(db.execute, "INSERT INTO t VALUES (?)", (n,))
        assert await db.fetch_value("SELECT count(*) FROM t") == 20
        assert db.stats.opened == 1


@pytest.mark.parametrize("options", [{"max_size": 2}, {"max_idle": 1.0}, {"max_age": 60.0}, {"max_uses": 3}])
def test_in_memory_refuses_what_would_lose_it(options: PoolOptions) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}: an in-memory database"):
        Database("sqlite:///:memory:", **options)


def test_the_adapters_errors_are_also_the_pools_and_the_drivers() -> None:
    for kind in (SQLiteBusy, SQLiteCommitUnknown):
        assert issubclass(kind, PoolError)
        assert issubclass(kind, sqlite3.OperationalError)
        assert issubclass(kind, TimeoutError)
