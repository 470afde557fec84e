from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager

import psycopg
import pytest
import trio

from nimblepool_database._errors import CommitUnknown, TransactionLost
from nimblepool_database._postgres._errors import PostgresCommitUnknown, PostgresTransactionLost
from nimblepool_database._postgres._resource import PostgresResource
from nimblepool_database._postgres._worker import PostgresWorker
from tests.database.postgres.pools import (
    PATIENCE,
    PostgresPool,
    ask,
    check_every_connection,
    postgres_pool,
)
from tests.database.postgres.server import PostgresServer

IDLE = psycopg.pq.TransactionStatus.IDLE


@contextmanager
def soon() -> Generator[None]:
    """What the block awaits has deadlines of a fraction of a second; no shield may make it last for seconds."""
    began = trio.current_time()
    try:
        yield
    finally:
        assert trio.current_time() - began < 4.0


@pytest.fixture
def table(postgres_url: str, request: pytest.FixtureRequest) -> str:
    """A table of its own, with a deferred constraint."""
    name = "t_" + "".join(c if c.isalnum() else "_" for c in request.node.name.lower())[-50:]
    ask(postgres_url, f"DROP TABLE IF EXISTS {name}")
    ask(postgres_url, f"CREATE TABLE {name} (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    return name


@pytest.fixture
async def pool(postgres_url: str) -> AsyncGenerator[PostgresPool]:
    async with postgres_pool(postgres_url, max_size=1) as pool:
        yield pool


@pytest.fixture
async def conn(pool: PostgresPool) -> AsyncGenerator[PostgresResource]:
    async with pool.checkout() as lease:
        yield lease.resource


async def test_committed_it_is_seen_by_others_and_rolled_back_by_nobody(
    conn: PostgresResource, table: str, postgres_url: str
) -> None:
    await conn.begin()
    await conn.execute(f"INSERT INTO {table} VALUES (1)")
    assert ask(postgres_url, f"SELECT count(*) FROM {table}") == 0
    await conn.commit()
    await conn.begin()
    await conn.execute(f"INSERT INTO {table} VALUES (2)")
    await conn.rollback()
    assert ask(postgres_url, f"SELECT array_agg(n) FROM {table}") == [1]
    assert conn.raw.info.transaction_status == IDLE


async def test_savepoints_nest(conn: PostgresResource, table: str) -> None:
    await conn.begin()
    for n, kept in ((1, True), (2, False), (3, True)):
        await conn.savepoint(f"nimblepool_{n}")
        await conn.execute(f"INSERT INTO {table} VALUES ({n})")
        await (conn.release if kept else conn.rollback_to)(f"nimblepool_{n}")
    await conn.commit()
    assert await conn.fetch_all(f"SELECT n FROM {table} ORDER BY n") == [(1,), (3,)]


async def test_rolling_back_to_a_savepoint_mends_a_failed_transaction(conn: PostgresResource, table: str) -> None:
    await conn.begin()
    await conn.execute(f"INSERT INTO {table} VALUES (1)")
    await conn.savepoint("s")
    with pytest.raises(psycopg.errors.DivisionByZero):
        await conn.fetch_value("SELECT 1 / 0")
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        await conn.release("s")
    await conn.rollback_to("s")
    await conn.commit()
    assert await conn.fetch_all(f"SELECT n FROM {table}") == [(1,)]


@pytest.mark.parametrize("isolation", ["read uncommitted", "read committed", "repeatable read", "serializable"])
async def test_isolation_and_readonly_are_the_transaction_s(conn: PostgresResource, isolation: str) -> None:
    await conn.begin(isolation, readonly=True)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert await conn.fetch_value("SHOW transaction_isolation") == isolation
    assert await conn.fetch_value("SHOW transaction_read_only") == "on"
    await conn.commit()
    await conn.begin()
    assert await conn.fetch_value("SHOW transaction_isolation") == "read committed"
    assert await conn.fetch_value("SHOW transaction_read_only") == "off"
    await conn.rollback()


async def test_an_unknown_isolation_is_refused(conn: PostgresResource) -> None:
    with pytest.raises(ValueError, match="'repeatable read'"):
        await conn.begin("snapshot")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert conn.raw.info.transaction_status == IDLE


async def test_a_second_begin_is_refused_and_the_first_goes_on(conn: PostgresResource, table: str) -> None:
    await conn.begin()
    await conn.execute(f"INSERT INTO {table} VALUES (1)")
    with pytest.raises(psycopg.errors.ActiveSqlTransaction):
        await conn.begin()
    await conn.commit()
    assert await conn.fetch_all(f"SELECT n FROM {table}") == [(1,)]


async def test_a_commit_that_the_server_refuses_says_why(conn: PostgresResource, table: str) -> None:
    await conn.begin()
    await conn.execute(f"INSERT INTO {table} VALUES (1), (1)")
    with pytest.raises(psycopg.errors.UniqueViolation) as caught:
        await conn.commit()
    assert not isinstance(caught.value, CommitUnknown)
    await conn.rollback()
    assert await conn.fetch_all(f"SELECT n FROM {table}") == []


async def test_a_failed_statement_whose_error_was_swallowed_does_not_look_committed(
    conn: PostgresResource, table: str
) -> None:
    await conn.begin()
    await conn.execute(f"INSERT INTO {table} VALUES (1)")
    with pytest.raises(psycopg.errors.DivisionByZero):
        await conn.fetch_value("SELECT 1 / 0")
    with pytest.raises(PostgresTransactionLost, match="failed"):
        await conn.commit()
    await conn.rollback()
    assert await conn.fetch_all(f"SELECT n FROM {table}") == []


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
async def test_a_transaction_ended_by_hand_refuses_to_go_on(conn: PostgresResource, table: str, end: str) -> None:
    await conn.begin()
    await conn.execute(end)
    for attempt in (
        conn.execute(f"INSERT INTO {table} VALUES (1)"),
        conn.fetch_all("SELECT 1"),
        conn.savepoint("s"),
        conn.execute_many(f"INSERT INTO {table} VALUES (%s)", [(1,)]),
        conn.commit(),
    ):
        with pytest.raises(TransactionLost):
            await attempt
    await conn.rollback()
    assert await conn.execute(f"INSERT INTO {table} VALUES (2)") == 1
    assert await conn.fetch_all(f"SELECT n FROM {table}") == [(2,)]


async def test_a_savepoint_that_cannot_be_undone_loses_the_transaction(conn: PostgresResource, table: str) -> None:
    await conn.begin()
    await conn.savepoint("s")
    await conn.execute(f"INSERT INTO {table} VALUES (1)")
    await conn.execute("RELEASE SAVEPOINT s")
    await conn.rollback_to("s")
    with pytest.raises(TransactionLost):
        await conn.fetch_value("SELECT 1")
    with pytest.raises(TransactionLost):
        await conn.commit()


async def test_a_cancelled_block_cannot_keep_its_transaction_open(pool: PostgresPool, postgres_url: str) -> None:
    with trio.CancelScope() as scope:
        async with pool.checkout() as lease:
            conn = lease.resource
            await conn.begin()
            try:
                scope.cancel()
                await conn.fetch_value("SELECT 1")
            finally:
                await conn.rollback()
    assert scope.cancelled_caught
    await check_every_connection(pool, 1)
    assert pool.stats.opened == 1
    assert ask(postgres_url, "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%%'") == 0


async def test_a_commit_is_not_cancelled(conn: PostgresResource, table: str, postgres_url: str) -> None:
    with trio.CancelScope() as scope:
        await conn.begin()
        await conn.execute(f"INSERT INTO {table} VALUES (1)")
        scope.cancel()
        await conn.commit()
    assert ask(postgres_url, f"SELECT array_agg(n) FROM {table}") == [1]


async def test_a_commit_that_is_not_answered_in_time_is_unknown_and_its_connection_removed(
    own_postgres: PostgresServer,
) -> None:
    ask(own_postgres.url, "CREATE TABLE t (n int)")
    worker = PostgresWorker(own_postgres.url, commit_timeout=0.3)
    async with postgres_pool(worker) as pool:
        with pytest.raises(PostgresCommitUnknown, match=r"0\.3 s") as caught:
            async with pool.checkout() as lease:
                await lease.resource.begin()
                await lease.resource.execute("INSERT INTO t VALUES (1)")
                with own_postgres.frozen(), soon():
                    await lease.resource.commit()
        assert isinstance(caught.value, CommitUnknown)
        assert isinstance(caught.value, psycopg.OperationalError)
        await check_every_connection(pool, 1)
        assert pool.stats.opened == 2


async def test_a_commit_whose_connection_was_lost_on_the_way_is_unknown(own_postgres: PostgresServer) -> None:
    # The trigger runs within COMMIT, and gives us the time to be too late.
    ask(
        own_postgres.url,
        """
        CREATE TABLE t (n int);
        CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(100); RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
            EXECUTE FUNCTION dawdle()
        """,
    )
    async with postgres_pool(own_postgres.url) as pool, pool.checkout() as lease:
        conn = lease.resource
        await conn.begin()
        await conn.execute("INSERT INTO t VALUES (1)")
        pid = conn.raw.info.backend_pid

        async def terminate() -> None:
            await trio.sleep(0.1)
            await trio.to_thread.run_sync(ask, own_postgres.url, "SELECT pg_terminate_backend(%s)", pid)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(terminate)
            with pytest.raises(PostgresCommitUnknown) as caught:
                await conn.commit()
        assert isinstance(caught.value.__cause__, psycopg.errors.AdminShutdown)


async def test_a_transaction_whose_connection_was_lost_before_commit_is_certainly_lost(
    conn: PostgresResource, table: str, postgres_url: str
) -> None:
    await conn.begin()
    await conn.execute(f"INSERT INTO {table} VALUES (1)")
    ask(postgres_url, "SELECT pg_terminate_backend(%s, 5000)", conn.raw.info.backend_pid)
    with pytest.raises(PostgresTransactionLost, match="nothing of it was committed"):
        await conn.commit()
    await conn.rollback()
    assert ask(postgres_url, f"SELECT count(*) FROM {table}") == 0


async def test_on_a_frozen_server_nothing_holds_anybody_past_its_deadline(own_postgres: PostgresServer) -> None:
    worker = PostgresWorker(own_postgres.url, commit_timeout=0.3, cancel_timeout=0.3)
    async with postgres_pool(worker, max_size=8) as pool:
        await check_every_connection(pool, 8)
        held = [pool.acquire(owner=None) for _ in range(5)]
        leases = [await lease for lease in held]
        conns = [lease.resource for lease in leases]
        for conn in conns[:4]:
            await conn.begin()
        await conns[2].savepoint("s")
        await conns[3].savepoint("s")
        with own_postgres.frozen(), soon():
            with trio.move_on_after(0.1):
                await conns[0].fetch_value("SELECT 1")
            await conns[0].rollback()
            await conns[1].rollback()
            await conns[2].rollback_to("s")
            with pytest.raises(TransactionLost):
                await conns[3].release("s")
            with trio.move_on_after(0.1):
                await conns[4].begin()
            for lease in leases:
                lease.release()
        await check_every_connection(pool, 8)


async def test_a_rollback_that_gets_no_answer_is_silent_and_removes_the_connection(
    own_postgres: PostgresServer,
) -> None:
    worker = PostgresWorker(own_postgres.url, commit_timeout=0.2)
    with trio.fail_after(PATIENCE):
        async with postgres_pool(worker, max_size=1) as pool:
            async with pool.checkout() as lease:
                await lease.resource.begin()
                with own_postgres.frozen():
                    await lease.resource.rollback()
            await check_every_connection(pool, 1)
            assert pool.stats.opened == 2
