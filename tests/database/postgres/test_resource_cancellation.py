"""Cancelled at every checkpoint, a pooled connection ends usable or removed, and answers nobody else's question."""

from collections.abc import Awaitable, Callable
from functools import partial

import psycopg
import pytest
import trio

from nimblepool.testing import sweep
from nimblepool_database._postgres._worker import PostgresWorker
from tests.database.postgres.pools import (
    PATIENCE,
    PostgresPool,
    ask,
    check_every_connection,
    marker,
    postgres_pool,
    until,
)

SIZE = 2
IN_TRANSACTION = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%%'"


@pytest.fixture
def table(postgres_url: str) -> str:
    ask(postgres_url, "CREATE TABLE IF NOT EXISTS swept (n int)")
    ask(postgres_url, "TRUNCATE swept")
    return "swept"


async def use_a_connection(pool: PostgresPool) -> None:
    async with pool.checkout() as lease:
        mine = marker()
        assert await lease.resource.fetch_all("SELECT %s::int", (mine,)) == [(mine,)]
        assert await lease.resource.fetch_value("SELECT %s::int FROM pg_sleep(0.001)", (mine,)) == mine


async def use_a_transaction(pool: PostgresPool) -> None:
    async with pool.checkout() as lease:
        conn = lease.resource
        await conn.begin()
        try:
            await conn.execute("INSERT INTO swept VALUES (1)")
            await conn.execute_many("INSERT INTO swept VALUES (%s)", [(2,)] * 10)
            await conn.commit()
        except BaseException:
            await conn.rollback()
            raise


async def use_a_nested_transaction(pool: PostgresPool) -> None:
    async with pool.checkout() as lease:
        conn = lease.resource
        await conn.begin()
        try:
            await conn.savepoint("s")
            try:
                await conn.execute("INSERT INTO swept VALUES (1)")
                await conn.release("s")
            except BaseException:
                await conn.rollback_to("s")
                raise
            await conn.commit()
        except BaseException:
            await conn.rollback()
            raise


async def leave_a_transaction(pool: PostgresPool) -> None:
    async with pool.checkout() as lease:
        await lease.resource.execute("BEGIN")
        await lease.resource.execute("INSERT INTO swept VALUES (1)")


async def copy_in(pool: PostgresPool) -> None:
    async with pool.checkout() as lease, lease.resource.copy("COPY swept FROM STDIN") as copy:
        for _ in range(3):
            await copy.write(b"1\n" * 30_000)


async def copy_out(pool: PostgresPool) -> None:
    sql = "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 40)) TO STDOUT"
    async with pool.checkout() as lease, lease.resource.copy(sql) as copy:
        while await copy.read():
            await trio.lowlevel.checkpoint()


async def use_a_pipeline(pool: PostgresPool) -> None:
    async with pool.checkout() as lease, lease.resource.pipeline():
        await lease.resource.execute("INSERT INTO swept VALUES (1)")
        mine = marker()
        assert await lease.resource.fetch_value("SELECT %s::int", (mine,)) == mine
        await lease.resource.execute("SELECT pg_sleep(0.001)")


async def use_a_stream(pool: PostgresPool) -> None:
    sql = "SELECT * FROM generate_series(1, 7)"
    async with pool.checkout() as lease, lease.resource.stream(sql, batch=3) as rows:
        assert [n async for (n,) in rows] == [1, 2, 3, 4, 5, 6, 7]


async def use_execute_many(pool: PostgresPool) -> None:
    async with pool.checkout() as lease:
        assert await lease.resource.execute_many("INSERT INTO swept VALUES (%s)", [(1,)] * 100) == 100


USES = [
    use_a_connection,
    use_a_transaction,
    use_a_nested_transaction,
    leave_a_transaction,
    copy_in,
    copy_out,
    use_a_pipeline,
    use_a_stream,
    use_execute_many,
]


@pytest.mark.parametrize("reset", ["auto", "discard"])
@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
async def test_cancelled_at_every_checkpoint(
    postgres_url: str, table: str, use: Callable[[PostgresPool], Awaitable[None]], reset: str
) -> None:
    worker = PostgresWorker(postgres_url, reset=reset)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    async with postgres_pool(worker, max_size=SIZE) as pool:
        await check_every_connection(pool, SIZE)

        async def check() -> None:
            await check_every_connection(pool, SIZE)

        with trio.fail_after(3 * PATIENCE):
            assert await sweep(partial(use, pool), check) > 2
        assert pool.stats.size == SIZE
    assert ask(postgres_url, IN_TRANSACTION) == 0


@pytest.mark.parametrize(
    ("use", "whole"), [(use_a_transaction, 11), (use_execute_many, 100)], ids=lambda use: getattr(use, "__name__", "")
)
async def test_cancelled_it_is_done_wholly_or_not_at_all(
    postgres_url: str, table: str, use: Callable[[PostgresPool], Awaitable[None]], whole: int
) -> None:
    before = 0

    async def check() -> None:
        nonlocal before
        async with pool.checkout() as lease:
            now = await lease.resource.fetch_value("SELECT count(*) FROM swept")
        assert now - before in (0, whole)
        before = now

    async with postgres_pool(postgres_url, max_size=1) as pool:
        await sweep(partial(use, pool), check)
    assert before > 0


async def test_cancelled_at_every_checkpoint_of_opening(postgres_url: str, table: str) -> None:
    async def open_and_use() -> None:
        async with postgres_pool(postgres_url, max_size=1) as pool:
            await use_a_transaction(pool)

    assert await sweep(open_and_use) > 5
    assert ask(postgres_url, IN_TRANSACTION) == 0


async def test_listening_cancelled_at_every_checkpoint_leaves_no_session(postgres_url: str) -> None:
    worker = PostgresWorker(postgres_url, application_name="swept listener")

    async def listen() -> None:
        async with worker.listen(["swept"]) as notifications:
            async with postgres_pool(worker, max_size=1) as pool, pool.checkout() as lease:
                await lease.resource.execute("NOTIFY swept, 'x'")
            assert (await anext(notifications)).payload == "x"

    assert await sweep(listen) > 5
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'swept listener'"
    await until(lambda: ask(postgres_url, sessions) == 0)


async def test_cancelled_at_random_no_answer_reaches_another_s_question(postgres_url: str) -> None:
    async def work(n: int) -> None:
        for round_ in range(6):
            with trio.move_on_after((n * 7 + round_ * 13) % 40 / 2000):
                async with pool.checkout(timeout=PATIENCE) as lease:
                    for _ in range(5):
                        mine = marker()
                        sql = "SELECT %s::int, repeat('x', 5000) FROM generate_series(1, 50)"
                        rows = await lease.resource.fetch_all(sql, (mine,))
                        assert {row[0] for row in rows} == {mine}
                        assert len(rows) == 50

    async with postgres_pool(postgres_url, max_size=4) as pool:
        with trio.fail_after(3 * PATIENCE):
            async with trio.open_nursery() as nursery:
                for n in range(40):
                    nursery.start_soon(work, n)
        await check_every_connection(pool, 4)
        with pytest.raises(psycopg.errors.SyntaxError):
            async with pool.checkout() as lease:
                await lease.resource.execute("syntax error")
