from collections.abc import AsyncGenerator

import pytest
import trio

from nimblepool_database._postgres._options import PREPARE_AFTER
from nimblepool_database._postgres._resource import PostgresResource
from tests.database.postgres.pools import PostgresPool, postgres_pool
from tests.database.postgres.trio_connections import connected, value


@pytest.fixture
async def pool(postgres_url: str) -> AsyncGenerator[PostgresPool]:
    async with postgres_pool(postgres_url, max_size=1) as pool:
        yield pool


@pytest.fixture
async def conn(pool: PostgresPool) -> AsyncGenerator[PostgresResource]:
    async with pool.checkout() as lease:
        yield lease.resource


# A type that is undone leaves nothing but its number in the statements that were prepared with it: they would fail.


async def use_a_type_of_its_own(conn: PostgresResource) -> None:
    await conn.execute("CREATE TYPE pg_temp.mood AS ENUM ('sad', 'happy')")
    await conn.execute("CREATE TEMPORARY TABLE moods (m pg_temp.mood)")
    for _ in range(PREPARE_AFTER + 2):
        await conn.execute("INSERT INTO moods VALUES (%s)", ("sad",))


async def prepare_something_else(conn: PostgresResource) -> None:
    for _ in range(3):
        await conn.execute_many("SELECT %s::int", [(1,), (2,)])


async def test_what_was_prepared_is_forgotten_with_a_rolled_back_transaction(conn: PostgresResource) -> None:
    for _ in range(2):
        await conn.begin()
        await use_a_type_of_its_own(conn)
        await conn.rollback()
        await prepare_something_else(conn)


async def test_what_was_prepared_is_forgotten_with_what_was_done_since_a_savepoint(conn: PostgresResource) -> None:
    await conn.begin()
    for _ in range(2):
        await conn.savepoint("s")
        await use_a_type_of_its_own(conn)
        await conn.rollback_to("s")
        await prepare_something_else(conn)
    await conn.commit()


async def test_what_was_prepared_is_forgotten_with_a_transaction_that_was_left_open(pool: PostgresPool) -> None:
    for _ in range(2):
        async with pool.checkout() as lease:
            await lease.resource.execute("BEGIN")
            await use_a_type_of_its_own(lease.resource)
        async with pool.checkout() as lease:
            await prepare_something_else(lease.resource)
    assert pool.stats.opened == 1


async def test_what_is_prepared_after_a_cancelled_pipeline_stays_so(postgres_url: str) -> None:
    async with connected(postgres_url, autocommit=True, prepare_threshold=0) as conn:
        with trio.move_on_after(0.1) as scope:
            async with conn.pipeline():
                await conn.execute("SELECT %s::int", (1,))
                await conn.execute("SELECT pg_sleep(%s)", (20,))
        assert scope.cancelled_caught
        for n in range(3):
            assert await value(conn, "SELECT %s::int + 1", n) == n + 1
        # That one and this one: what the pipeline had prepared is gone.
        assert await value(conn, "SELECT count(*) FROM pg_prepared_statements") == 2
