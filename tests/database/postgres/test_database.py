"""`Database` over PostgreSQL: what the façade and the adapter do together."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from itertools import count

import psycopg
import pytest
import trio
from psycopg.rows import dict_row

from nimblepool import LeaseExpired
from nimblepool.testing import check_balance, sweep
from nimblepool_database import Database, PostgresWorker, TransactionLost
from tests.database.postgres.pools import PATIENCE, ask, check_every_connection, marker, until
from tests.database.postgres.server import PostgresServer

SIZE = 2
IN_TRANSACTION = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
entry = count(1).__next__


@pytest.fixture
async def db(postgres_url: str) -> AsyncGenerator[Database]:
    """A database with an empty table ``entries``."""
    await trio.to_thread.run_sync(ask, postgres_url, "CREATE TABLE IF NOT EXISTS entries (n int); TRUNCATE entries")
    async with Database(postgres_url, max_size=SIZE) as db:
        yield db
    check_balance(db.pool)


async def test_all_of_the_facade(db: Database, postgres_url: str) -> None:
    async with db.transaction(isolation="serializable") as conn:
        assert await conn.execute("INSERT INTO entries VALUES (%s)", (1,)) == 1
        with pytest.raises(psycopg.errors.DivisionByZero):
            async with conn.transaction():
                await conn.execute("INSERT INTO entries VALUES (%s)", (2,))
                await conn.fetch_value("SELECT 1 / 0")
        async with conn.transaction():
            await conn.execute_many("INSERT INTO entries VALUES (%s)", [(3,), (4,)])
    async with db.copy("COPY entries FROM STDIN") as copy:
        await copy.write_row((5,))
    async with db.pipeline() as conn:
        await conn.execute("INSERT INTO entries VALUES (6)")
        await conn.execute("INSERT INTO entries VALUES (7)")
    async with db.stream("SELECT n FROM entries ORDER BY n", batch=2) as rows:
        assert [n async for (n,) in rows] == [1, 3, 4, 5, 6, 7]
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        async with db.transaction(readonly=True) as conn:
            await conn.execute("INSERT INTO entries VALUES (8)")
    async with db.listen("channel") as notes:
        await db.execute("SELECT pg_notify('channel', 'hello')")
        assert (await anext(notes)).payload == "hello"
    assert ask(postgres_url, "SELECT count(*) FROM entries") == 6
    assert db.stats.opened == 1


async def test_after_its_block_nothing_works_any_more(db: Database) -> None:
    async with db.stream("SELECT 1 FROM generate_series(1, 10)", batch=2) as rows, db.connection() as conn:
        await anext(rows)
    with pytest.raises(LeaseExpired):
        await anext(rows)
    with pytest.raises(LeaseExpired):
        await conn.fetch_value("SELECT 1")


async def test_the_driver_s_row_factory_is_kept(postgres_url: str) -> None:
    async with Database(PostgresWorker(postgres_url, row_factory=dict_row)) as db:
        assert await db.fetch_all("SELECT 1 AS a") == [{"a": 1}]
        assert await db.fetch_value("SELECT 1 AS a") == 1


async def test_a_sandbox_leaves_nothing(db: Database, postgres_url: str) -> None:
    async with db.sandbox():
        await db.execute("INSERT INTO entries VALUES (1)")
        async with db.transaction() as conn:
            await conn.execute_many("INSERT INTO entries VALUES (%s)", [(2,), (3,)])
        with pytest.raises(ZeroDivisionError):
            async with db.transaction() as conn:
                await conn.execute("INSERT INTO entries VALUES (4)")
                raise ZeroDivisionError
        async with db.stream("SELECT n FROM entries ORDER BY n", batch=2) as rows:
            assert [n async for (n,) in rows] == [1, 2, 3]
    assert ask(postgres_url, "SELECT count(*) FROM entries") == 0


async def test_an_error_in_a_sandbox_costs_only_its_own_statement(db: Database, postgres_url: str) -> None:
    async with db.sandbox():
        await db.execute("INSERT INTO entries VALUES (1)")
        with pytest.raises(psycopg.errors.DivisionByZero):
            await db.fetch_value("SELECT 1 / 0")
        assert await db.fetch_value("SELECT count(*) FROM entries") == 1
    assert ask(postgres_url, "SELECT count(*) FROM entries") == 0


async def test_a_statement_that_ends_the_transaction_ends_the_block_with_an_error(
    db: Database, postgres_url: str
) -> None:
    with pytest.raises(TransactionLost):
        async with db.transaction() as conn:
            await conn.execute("ROLLBACK")
            await conn.execute("INSERT INTO entries VALUES (1)")
    assert ask(postgres_url, "SELECT count(*) FROM entries") == 0


async def test_a_cancelled_transaction_is_rolled_back_before_the_cancellation_comes_out(
    db: Database, postgres_url: str
) -> None:
    with trio.move_on_after(0.05) as scope:
        async with db.transaction() as conn:
            await conn.execute("INSERT INTO entries VALUES (1)")
            await conn.execute("SELECT pg_sleep(100)")
    assert scope.cancelled_caught
    assert ask(postgres_url, IN_TRANSACTION) == 0
    assert await db.fetch_value("SELECT count(*) FROM entries") == 0
    assert db.stats.opened == 1


async def use_a_connection(db: Database) -> None:
    async with db.connection() as conn:
        mine = marker()
        assert await conn.fetch_all("SELECT %s::int", (mine,)) == [(mine,)]


async def use_a_transaction(db: Database) -> None:
    async with db.transaction() as conn:
        await conn.execute("INSERT INTO entries VALUES (%s)", (entry(),))


async def use_nested_transactions(db: Database) -> None:
    async with db.transaction() as conn:
        with suppress(ZeroDivisionError):
            async with conn.transaction():
                await conn.execute("INSERT INTO entries VALUES (0)")
                raise ZeroDivisionError
        async with conn.transaction():
            await conn.execute("INSERT INTO entries VALUES (%s)", (entry(),))


async def copy_both_ways(db: Database) -> None:
    async with db.copy("COPY entries FROM STDIN") as copy:
        await copy.write_row((entry(),))
    async with db.copy("COPY (SELECT generate_series(1, 5)) TO STDOUT") as copy:
        while await copy.read():
            pass


async def use_a_pipeline(db: Database) -> None:
    async with db.pipeline() as conn, conn.transaction():
        await conn.execute("INSERT INTO entries VALUES (%s)", (entry(),))
        mine = marker()
        assert await conn.fetch_value("SELECT %s::int", (mine,)) == mine


async def use_a_stream(db: Database) -> None:
    async with db.stream("SELECT * FROM generate_series(1, 7)", batch=3) as rows:
        assert [n async for (n,) in rows] == [1, 2, 3, 4, 5, 6, 7]


async def listen(db: Database) -> None:
    async with db.listen("swept") as notes:
        await db.execute("NOTIFY swept, 'x'")
        assert (await anext(notes)).payload == "x"


async def use_a_sandbox(db: Database) -> None:
    async with db.sandbox(), db.transaction() as conn:
        await conn.execute("INSERT INTO entries VALUES (0)")


USES = [
    use_a_connection,
    use_a_transaction,
    use_nested_transactions,
    copy_both_ways,
    use_a_pipeline,
    use_a_stream,
    listen,
    use_a_sandbox,
]


@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
async def test_cancelled_at_every_checkpoint(
    db: Database, postgres_url: str, use: Callable[[Database], Awaitable[None]]
) -> None:
    async def check() -> None:
        await check_every_connection(db.pool, SIZE)
        assert await db.fetch_value("SELECT count(*) FROM entries WHERE n = 0") == 0

    await check_every_connection(db.pool, SIZE)
    with trio.fail_after(3 * PATIENCE):
        assert await sweep(partial(use, db), check) > 2
    assert db.stats.size == SIZE
    assert ask(postgres_url, IN_TRANSACTION) == 0
    # No entry was written twice, and at least one.
    if use in (use_a_transaction, use_nested_transactions, use_a_pipeline):
        written = await db.fetch_all("SELECT n, count(*) FROM entries GROUP BY n")
        assert {times for _, times in written} == {1}


async def test_a_restart_costs_clients_that_are_between_statements_nothing(own_postgres: PostgresServer) -> None:
    async with Database(own_postgres.url, max_size=2) as db:
        await check_every_connection(db.pool, 2)
        await trio.to_thread.run_sync(own_postgres.restart)
        assert await db.fetch_value("SELECT 1") == 1
        assert await db.execute("SELECT 1") == 0
        await until(lambda: db.stats.leased == 0)
