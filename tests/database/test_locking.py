import sqlite3
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from nimblepool import CheckoutTimeout, PoolError
from nimblepool.testing import check_balance, sweep
from nimblepool_database import Database, SQLiteBusy

Write = Callable[[Database], Awaitable[None]]

INCREMENT = "UPDATE tally SET n = n + 1"


@contextmanager
def locked(path: Path) -> Generator[sqlite3.Connection, None, None]:
    """Another process's connection, so to speak, with the write lock on the file."""
    outside = sqlite3.connect(path, isolation_level=None)
    try:
        outside.execute("BEGIN IMMEDIATE")
        yield outside
    finally:
        outside.close()


async def in_a_statement(db: Database) -> None:
    await db.execute(INCREMENT)


async def in_many(db: Database) -> None:
    await db.execute_many("UPDATE tally SET n = n + ?", [(1,)])


async def in_a_transaction(db: Database) -> None:
    async with db.transaction() as conn:
        await conn.execute(INCREMENT)


async def by_hand(db: Database) -> None:
    async with db.connection() as conn:
        await conn.execute("BEGIN")
        await conn.execute(INCREMENT)
        await conn.execute("COMMIT")


WRITES = pytest.mark.parametrize(
    "write", [in_a_statement, in_many, in_a_transaction, by_hand], ids=lambda f: f.__name__
)


@WRITES
async def test_a_lock_from_outside_is_waited_for(counter: str, path: Path, write: Write) -> None:
    async with Database(counter) as db:
        await db.fetch_value("SELECT 1")
        with locked(path) as outside:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write, db)
                await trio.sleep(0.05)
                assert await db.fetch_value("SELECT n FROM tally") == 0
                outside.execute("ROLLBACK")
        assert await db.fetch_value("SELECT n FROM tally") == 1


@WRITES
async def test_waiting_for_a_lock_can_be_cancelled(counter: str, path: Path, write: Write) -> None:
    async with Database(counter, max_size=1) as db:
        with locked(path):
            with trio.fail_after(4.0), trio.move_on_after(0.05) as scope:
                await write(db)
            assert scope.cancelled_caught
            assert await db.fetch_value("SELECT n FROM tally") == 0
        await write(db)
        assert await db.fetch_value("SELECT n FROM tally") == 1
        assert db.stats.opened == 1


@WRITES
async def test_waiting_for_a_lock_ends_with_the_drivers_error(counter: str, path: Path, write: Write) -> None:
    async with Database(counter + "?busy_timeout=0.05", max_size=1) as db:
        with locked(path):
            with pytest.raises(sqlite3.OperationalError, match="database is locked") as caught:
                await write(db)
            assert not isinstance(caught.value, PoolError)
        await write(db)


@WRITES
async def test_cancelled_anywhere_while_the_database_is_busy_nothing_is_done(
    counter: str, path: Path, write: Write
) -> None:
    async with Database(counter + "?busy_timeout=0.01", max_size=2) as db:

        async def use() -> None:
            with pytest.raises(sqlite3.OperationalError, match="database is locked"):
                await write(db)

        async def check() -> None:
            assert await db.fetch_value("SELECT n FROM tally") == 0

        await check()
        with locked(path):
            assert await sweep(use, check) > 5
        await write(db)
        assert await db.fetch_value("SELECT n FROM tally") == 1
        check_balance(db.pool)
        check_balance(db.writer_pool)


async def test_a_transaction_that_read_too_early_is_told_at_once(counter: str) -> None:
    async with Database(counter + "?busy_timeout=60") as db:
        with trio.fail_after(10.0):
            async with db.connection() as conn:
                await conn.execute("BEGIN")
                await conn.fetch_all("SELECT * FROM tally")
                await db.execute(INCREMENT)
                with pytest.raises(sqlite3.OperationalError) as caught:
                    await conn.execute(INCREMENT)
                assert caught.value.sqlite_errorcode == sqlite3.SQLITE_BUSY_SNAPSHOT


@pytest.mark.parametrize("journal", ["wal", "delete"])
async def test_no_update_is_lost(counter: str, journal: str) -> None:
    tasks, rounds = 20, 10

    async def increment(db: Database) -> None:
        for _ in range(rounds):
            async with db.transaction() as conn:
                n = await conn.fetch_value("SELECT n FROM tally")
                await conn.execute("UPDATE tally SET n = ?", (n + 1,))

    async with Database(f"{counter}?journal_mode={journal}", max_size=4, checkout_timeout=60.0) as db:
        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(increment, db)
        assert await db.fetch_value("SELECT n FROM tally") == tasks * rounds


async def test_single_statements_and_transactions_share_the_queue(counter: str) -> None:
    async def statements(db: Database) -> None:
        for _ in range(20):
            await db.execute(INCREMENT)

    async def transactions(db: Database) -> None:
        for _ in range(20):
            await in_a_transaction(db)

    async with Database(counter, max_size=4, checkout_timeout=60.0) as db:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(statements, db)
                nursery.start_soon(transactions, db)
        assert await db.fetch_value("SELECT n FROM tally") == 160


async def test_readers_go_on_during_a_transaction(counter: str) -> None:
    async with Database(counter) as db, db.transaction() as conn:
        await conn.execute(INCREMENT)
        assert await db.fetch_value("SELECT n FROM tally") == 0


async def test_a_transaction_inside_itself_explains_itself(counter: str) -> None:
    async with Database(counter, checkout_timeout=0.05) as db, db.transaction():
        with pytest.raises(CheckoutTimeout, match="test_a_transaction_inside_itself"):
            await in_a_transaction(db)


async def test_a_writer_outside_the_writers_pool_waits_for_it_and_explains_itself(counter: str) -> None:
    async with Database(counter + "?busy_timeout=0.05") as db, db.transaction():
        with pytest.raises(SQLiteBusy, match="use the transaction's own connection") as caught:
            async with db.connection() as conn, conn.transaction():
                pass
        assert isinstance(caught.value, sqlite3.OperationalError)
        assert isinstance(caught.value, TimeoutError)


async def test_several_pools_open_one_new_file_at_once(url: str) -> None:
    async def use() -> None:
        async with Database(url, min_size=4, max_size=4) as db:
            await db.execute("CREATE TABLE IF NOT EXISTS t (a)")
            await db.execute("INSERT INTO t VALUES (1)")

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(use)
    async with Database(url) as db:
        assert await db.fetch_value("SELECT count(*) FROM t") == 4
