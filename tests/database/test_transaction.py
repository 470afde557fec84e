import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import trio

from nimblepool import PoolError
from nimblepool_database import Database, TransactionLost

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
ENDLESS_INSERT = "INSERT INTO tally WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"


async def tally(db: Database) -> int:
    value = await db.fetch_value("SELECT sum(n) FROM tally")
    assert isinstance(value, int)
    return value


async def test_a_block_that_ends_is_committed(counter: str) -> None:
    async with Database(counter) as db:
        async with db.transaction() as conn:
            await conn.execute("UPDATE tally SET n = n + 1")
            assert await tally(db) == 0
        assert await tally(db) == 1


@pytest.mark.parametrize("error", [ValueError("mine"), KeyError(1), KeyboardInterrupt(), StopAsyncIteration()])
async def test_a_block_that_raises_is_rolled_back_and_its_error_comes_out_as_it_is(
    counter: str, error: BaseException
) -> None:
    async with Database(counter) as db:
        with pytest.raises(type(error)) as caught:
            async with db.transaction() as conn:
                await conn.execute("UPDATE tally SET n = n + 1")
                raise error
        assert caught.value is error
        assert await tally(db) == 0
        assert db.stats.closed == 0


async def test_a_cancelled_block_is_rolled_back(counter: str, path: Path) -> None:
    async with Database(counter, max_size=1) as db:
        with trio.CancelScope() as scope:
            async with db.transaction() as conn:
                await conn.execute("UPDATE tally SET n = n + 1")
                scope.cancel()
                await conn.fetch_all(ENDLESS)
        assert scope.cancelled_caught
        with closing(sqlite3.connect(path, timeout=0.0)) as outside:
            outside.execute("BEGIN IMMEDIATE")
        async with db.connection() as conn:
            assert not await conn.call(lambda raw: raw.in_transaction)
        assert await tally(db) == 0
        assert db.stats.opened == 1


async def test_a_block_that_came_to_its_end_is_committed_even_when_cancelled(counter: str) -> None:
    async with Database(counter) as db:
        after = False
        with trio.CancelScope() as scope:
            async with db.transaction() as conn:
                await conn.execute("UPDATE tally SET n = n + 1")
                scope.cancel()
            after = True
        assert after
        assert await tally(db) == 1


async def test_a_commit_that_fails_leaves_nothing(counter: str) -> None:
    async with Database(counter, max_size=1) as db:
        await db.execute("CREATE TABLE child (id REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
        await db.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
        with pytest.raises(sqlite3.IntegrityError):
            async with db.transaction() as conn:
                await conn.execute("UPDATE tally SET n = n + 1")
                await conn.execute("INSERT INTO child VALUES (7)")
        async with db.transaction():
            pass
        assert await tally(db) == 0
        assert db.stats.opened == 1


async def test_what_follows_an_interrupted_insert_is_not_committed_by_itself(counter: str) -> None:
    async with Database(counter, max_size=1) as db:
        with pytest.raises(TransactionLost) as caught:
            async with db.transaction() as conn:
                await conn.execute("UPDATE tally SET n = 1")
                with trio.move_on_after(0.02) as scope:
                    await conn.execute(ENDLESS_INSERT)
                assert scope.cancelled_caught
                if await conn.call(lambda raw: raw.in_transaction):
                    # This SQLite undid the statement alone; the rest is as if it had undone all.
                    await conn.execute("ROLLBACK")
                await conn.execute("UPDATE tally SET n = 1000")
        assert isinstance(caught.value, PoolError)
        assert isinstance(caught.value, sqlite3.OperationalError)
        assert await tally(db) == 0
        assert db.stats.opened == 1


@pytest.mark.parametrize(("ending", "total"), [("COMMIT", 1), ("ROLLBACK", 0)])
async def test_ending_the_transaction_by_hand_is_noticed(counter: str, ending: str, total: int) -> None:
    async with Database(counter) as db:
        with pytest.raises(TransactionLost):
            async with db.transaction() as conn:
                await conn.execute("UPDATE tally SET n = 1")
                await conn.execute(ending)
        assert await tally(db) == total


async def test_a_transaction_left_open_by_hand_is_rolled_back(counter: str) -> None:
    async with Database(counter, max_size=1) as db:
        async with db.connection() as conn:
            await conn.execute("BEGIN")
            await conn.execute("UPDATE tally SET n = 1")
        async with db.connection() as conn:
            assert not await conn.call(lambda raw: raw.in_transaction)
            assert await conn.fetch_value("SELECT n FROM tally") == 0
        assert db.stats.opened == 1


async def test_tasks_may_share_a_transaction(counter: str) -> None:
    async with Database(counter) as db:
        async with db.transaction() as conn, trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(conn.execute, "UPDATE tally SET n = n + 1")
        assert await tally(db) == 20


async def test_a_cancelled_statement_does_not_harm_its_neighbour_on_the_same_connection(counter: str) -> None:
    async with Database(counter, max_size=1) as db, db.connection() as conn:
        answers: list[object] = []

        async def long() -> None:
            answers.append(
                await conn.fetch_value(
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300000) SELECT max(i) FROM n"
                )
            )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(long)
            await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(0.001):
                await conn.fetch_value("SELECT 1")
        assert answers == [300000]
