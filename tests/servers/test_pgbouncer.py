import psycopg
import pytest
import trio

from nimblepool.testing import check_balance, sweep
from nimblepool_database import Database, PostgresWorker, Unsupported
from nimblepool_database._dbapi._psycopg import psycopg_worker
from tests.database.postgres.server import PostgresServer
from tests.servers.ledger import Ledger
from tests.servers.pgbouncer import SERVER_CONNECTIONS, PgBouncer
from tests.servers.process import until

PATIENCE = 15.0
"""Seconds that nothing here should need."""
SESSIONS = "SELECT pid, state FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"


def ask(server: PostgresServer, sql: str) -> list[tuple[object, ...]]:
    """Return the answer of the server itself, not through PgBouncer."""
    with psycopg.connect(server.url, autocommit=True, connect_timeout=5) as conn:
        return conn.execute(sql.encode()).fetchall()


@pytest.fixture
def database(bouncer: PgBouncer) -> Database:
    return Database(PostgresWorker(bouncer.url, pgbouncer=True), max_size=20, checkout_timeout=30.0)


async def test_transactions_and_savepoints(database: Database) -> None:
    async with database as db:
        await db.execute("DROP TABLE IF EXISTS t")
        await db.execute("CREATE TABLE t (n int PRIMARY KEY)")
        async with db.transaction() as conn:
            await conn.execute("INSERT INTO t VALUES (1)")
            with pytest.raises(ZeroDivisionError):
                async with conn.transaction():
                    await conn.execute("INSERT INTO t VALUES (2)")
                    raise ZeroDivisionError
            async with conn.transaction():
                await conn.execute("INSERT INTO t VALUES (3)")
        with pytest.raises(psycopg.errors.UniqueViolation):
            await db.execute_many("INSERT INTO t VALUES (%s)", [(4,), (1,)])
        assert await db.fetch_all("SELECT n FROM t ORDER BY n") == [(1,), (3,)]
        async with db.connection() as conn, conn.stream("SELECT n FROM t ORDER BY n", batch=1) as rows:
            assert [row async for row in rows] == [(1,), (3,)]
        with pytest.raises(Unsupported):
            async with db.listen("news"):
                pass
    check_balance(db.pool)


async def test_many_clients_share_few_sessions_and_nothing_is_prepared_in_the_wrong_one(
    database: Database, postgres: PostgresServer
) -> None:
    sessions: set[int] = set()

    async def client(number: int) -> None:
        for _ in range(20):
            [(pid, answer)] = await database.fetch_all("SELECT pg_backend_pid(), %s::int", (number,))
            sessions.add(pid)
            assert answer == number

    async with database as db:
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(client, number)
        assert db.stats.opened > SERVER_CONNECTIONS
    assert 1 <= len(sessions) <= SERVER_CONNECTIONS
    check_balance(db.pool)


async def test_a_statement_timeout_holds_within_its_transaction_alone(
    bouncer: PgBouncer, postgres: PostgresServer
) -> None:
    worker = PostgresWorker(bouncer.url, pgbouncer=True, statement_timeout=0.2)
    async with Database(worker, max_size=2) as db:
        with trio.fail_after(PATIENCE), pytest.raises(psycopg.errors.QueryCanceled):
            async with db.transaction() as conn:
                assert await conn.fetch_value("SHOW statement_timeout") == "200ms"
                await conn.execute("SELECT pg_sleep(60)")
        assert await db.fetch_value("SELECT 1") == 1
        others = psycopg.connect(bouncer.url, autocommit=True)
        try:
            for _ in range(2 * SERVER_CONNECTIONS):
                assert others.execute("SHOW statement_timeout").fetchone() == ("0",)
        finally:
            others.close()


async def test_cancelling_ends_the_work_in_the_server(database: Database, postgres: PostgresServer) -> None:
    running = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(62)' AND state = 'active'"
    async with database as db:
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(db.execute, "SELECT pg_sleep(62)")
                await until(lambda: ask(postgres, running) == [(1,)])
                nursery.cancel_scope.cancel()
            await until(lambda: ask(postgres, running) == [(0,)])
            assert await db.fetch_value("SELECT 1") == 1


async def test_cancelled_at_every_checkpoint(bouncer: PgBouncer, postgres: PostgresServer) -> None:
    async def scenario() -> None:
        worker = PostgresWorker(bouncer.url, pgbouncer=True)
        async with Database(worker, max_size=1) as db:
            try:
                async with db.transaction() as conn:
                    await conn.execute("INSERT INTO t VALUES (1)")
                    async with conn.transaction():
                        await conn.execute("UPDATE t SET n = 2")
                    await conn.execute("DELETE FROM t")
            finally:
                with trio.CancelScope(shield=True):
                    assert await db.fetch_all("SELECT n FROM t") == []
                    check_balance(db.pool)

    async with Database(PostgresWorker(bouncer.url, pgbouncer=True)) as db:
        await db.execute("DROP TABLE IF EXISTS t")
        await db.execute("CREATE TABLE t (n int PRIMARY KEY)")
    with trio.fail_after(4 * PATIENCE):
        assert await sweep(scenario) > 10
    await until_none_is_in_a_transaction(postgres)


async def until_none_is_in_a_transaction(postgres: PostgresServer) -> None:
    await until(lambda: all(state == "idle" for _, state in ask(postgres, SESSIONS)))


@pytest.mark.parametrize("driver", ["trio", "threads"])
async def test_killed_and_restarted_under_load_it_loses_nothing(
    bouncer: PgBouncer, postgres: PostgresServer, driver: str
) -> None:
    native = driver == "trio"
    worker = (
        PostgresWorker(bouncer.url, pgbouncer=True) if native else psycopg_worker(bouncer.url, prepare_threshold=None)
    )
    async with Database(worker, max_size=8, checkout_timeout=20.0) as db:
        ledger = Ledger(db, "%s", psycopg.Error)
        await ledger.set_up()
        await ledger.work_while(bouncer.restart, rounds=6)
        await ledger.check()
        assert ledger.failed
        assert ledger.cancelled
        await until_none_is_in_a_transaction(postgres)
        await ledger.check_capacity(8)
        check_balance(db.pool)
    assert {row["pool_mode"] for row in bouncer.show("POOLS") if row["database"] == "postgres"} == {"transaction"}
