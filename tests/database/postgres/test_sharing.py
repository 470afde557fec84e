import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count

import psycopg
import pytest
import trio
import trio.testing

from nimblepool_database import Connection, Database
from nimblepool_database._postgres._worker import PostgresWorker
from tests.database.postgres.pools import until

SLOW = "SELECT pg_sleep(0.3)"
BEYOND_PATIENCE = "SELECT pg_sleep(0.8)"
INSERT = "INSERT INTO shared VALUES (%s)"
INSERT_SLOWLY = "INSERT INTO shared SELECT %s FROM pg_sleep(0.1)"

Act = Callable[[Connection], Awaitable[object]]


@asynccontextmanager
async def shared(worker: PostgresWorker) -> AsyncGenerator[Connection]:
    """A connection that several tasks use, and its own table that holds 1."""
    async with Database(worker, max_size=1) as db, db.connection() as conn:
        await conn.execute("CREATE TEMP TABLE shared (n int PRIMARY KEY)")
        await conn.execute(INSERT, (1,))
        yield conn


@pytest.fixture
async def conn(postgres_url: str) -> AsyncGenerator[Connection]:
    async with shared(PostgresWorker(postgres_url)) as conn:
        yield conn


@pytest.fixture
async def hurried(postgres_url: str) -> AsyncGenerator[Connection]:
    async with shared(PostgresWorker(postgres_url, commit_timeout=0.5)) as conn:
        yield conn


async def is_used(conn: Connection) -> None:
    await until(conn.raw.lock.locked)


async def add_20(conn: Connection) -> None:
    assert await conn.execute(INSERT, (20,)) == 1


async def add_20_and_21(conn: Connection) -> None:
    assert await conn.execute_many(INSERT, [(20,), (21,)]) == 2


async def all_of(conn: Connection) -> set[int]:
    return {n for (n,) in await conn.fetch_all("SELECT n FROM shared")}


@pytest.mark.parametrize(("act", "added"), [(add_20, {20}), (add_20_and_21, {20, 21})])
async def test_many_rows_that_fail_undo_no_other_task_s_statement(conn: Connection, act: Act, added: set[int]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(act, conn)
        with pytest.raises(psycopg.errors.UniqueViolation):
            await conn.execute_many(INSERT_SLOWLY, [(10,), (1,)])
    assert await all_of(conn) == {1} | added


async def test_many_rows_that_fail_undo_no_other_task_s_many_rows_in_one_transaction(conn: Connection) -> None:
    async def fail() -> None:
        with pytest.raises(psycopg.errors.UniqueViolation):
            await conn.execute_many(INSERT, [(10,), (1,)])

    async with conn.transaction(), trio.open_nursery() as nursery:
        nursery.start_soon(conn.execute_many, INSERT_SLOWLY, [(20,), (21,)])
        await is_used(conn)
        nursery.start_soon(fail)
    assert await all_of(conn) == {1, 20, 21}


async def test_a_stream_may_begin_while_another_task_s_statement_runs(conn: Connection) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(conn.execute, SLOW)
        await is_used(conn)
        async with conn.stream("SELECT generate_series(1, 3)") as rows:
            assert [n async for (n,) in rows] == [1, 2, 3]


async def test_many_rows_cancelled_after_another_task_s_statement_are_all_or_none(conn: Connection) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(conn.execute, SLOW)
        await is_used(conn)
        with trio.CancelScope() as scope:
            nursery.start_soon(cancel_when_at_work, conn, scope)
            await conn.execute_many(INSERT, [(n,) for n in range(10, 50_000)])
    assert scope.cancelled_caught
    assert await all_of(conn) == {1}


async def cancel_when_at_work(conn: Connection, scope: trio.CancelScope) -> None:
    await until(lambda: conn.raw.pgconn.pipeline_status)
    await trio.sleep(0.05)
    scope.cancel()


async def test_a_commit_s_deadline_does_not_count_while_other_tasks_use_the_connection(hurried: Connection) -> None:
    async with trio.open_nursery() as nursery, hurried.transaction():
        await hurried.execute(INSERT, (2,))
        nursery.start_soon(hurried.execute, BEYOND_PATIENCE)
        await is_used(hurried)
        nursery.start_soon(hurried.execute, BEYOND_PATIENCE)
    assert await all_of(hurried) == {1, 2}


async def test_a_savepoint_s_deadline_does_not_either(hurried: Connection) -> None:
    async with trio.open_nursery() as nursery, hurried.transaction():
        nursery.start_soon(hurried.execute, BEYOND_PATIENCE)
        await is_used(hurried)
        async with hurried.transaction():
            await hurried.execute(INSERT, (2,))
    assert await all_of(hurried) == {1, 2}


async def test_a_lock_that_is_kept_is_the_keeper_s_alone(postgres_url: str) -> None:
    resource = await PostgresWorker(postgres_url).init()
    lock, order = resource.raw.lock, list[str]()

    async def other() -> None:
        async with lock:
            order.append("other")

    async with trio.open_nursery() as nursery:
        async with lock.kept(), lock, lock.kept():
            nursery.start_soon(other)
            await trio.testing.wait_all_tasks_blocked()
            order.append("keeper")
        await trio.testing.wait_all_tasks_blocked()
    assert order == ["keeper", "other"]
    assert not lock.locked()
    await resource.close()


async def test_of_tasks_that_share_a_connection_and_are_cancelled_none_loses_what_it_was_told_is_done(
    conn: Connection,
) -> None:
    done: set[int] = set()
    # Acknowledged or not: what was cancelled may have been done, but all of it or nothing.
    pairs: set[tuple[int, int]] = set()
    number = count(100).__next__

    async def work(dice: random.Random) -> None:
        first, second = number(), number()
        match dice.randrange(4):
            case 0:
                await conn.execute(INSERT, (first,))
                done.add(first)
            case 1:
                pairs.add((first, second))
                await conn.execute_many(INSERT, [(first,), (second,)])
                done.update((first, second))
            case 2:
                with pytest.raises(psycopg.errors.UniqueViolation):
                    await conn.execute_many(INSERT, [(first,), (1,)])
                pairs.add((first, 0))
            case _:
                assert await conn.fetch_value("SELECT %s::int", (first,)) == first

    async def task(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(25):
            with trio.move_on_after(dice.choice([10, 10, dice.random() * 0.01])):
                await work(dice)

    async with trio.open_nursery() as nursery:
        for seed in range(5):
            nursery.start_soon(task, seed)
    kept = await all_of(conn)
    assert done <= kept
    assert all((first in kept) is (second in kept) for first, second in pairs)
