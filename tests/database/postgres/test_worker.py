import logging
from typing import Any

import psycopg
import pytest
import trio

from nimblepool import CheckoutTimeout, PoolObserver, PoolUnavailable, Verdict
from nimblepool.testing import check_worker
from nimblepool_database._postgres import _idle, _worker
from nimblepool_database._postgres._errors import error_from, verdict_on
from nimblepool_database._postgres._trio_connection import TrioConnection
from nimblepool_database._postgres._worker import PostgresWorker
from tests.database.postgres.pools import ask, check_every_connection, postgres_pool, until
from tests.database.postgres.server import PostgresServer

REST = 0.05
IDLE = psycopg.pq.TransactionStatus.IDLE


class Deaths(PoolObserver):
    """Collects what resources died of."""

    def __init__(self) -> None:
        self.errors: list[BaseException | None] = []

    def died(self, pool: str, error: BaseException | None) -> None:
        self.errors.append(error)


async def test_the_worker_conforms(postgres_url: str) -> None:
    await check_worker(PostgresWorker(postgres_url))


@pytest.fixture
def early_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have connections watched after a rest of 0.05 to 0.1 seconds."""
    monkeypatch.setattr(_idle, "REST", REST)


# What happens to a connection that comes back.


@pytest.mark.parametrize("sql", ["SELECT 1", "SELECT 1 / 0"])
async def test_a_transaction_left_open_is_rolled_back_and_its_connection_kept(postgres_url: str, sql: str) -> None:
    async with postgres_pool(postgres_url, max_size=1) as pool:
        with pytest.raises(ZeroDivisionError):
            async with pool.checkout() as lease:
                await lease.resource.execute("CREATE TABLE never_kept ()")
                await lease.resource.execute("DROP TABLE never_kept")
                await lease.resource.execute("BEGIN; CREATE TABLE never_kept ()")
                try:
                    await lease.resource.execute(sql)
                except psycopg.Error:
                    assert sql != "SELECT 1"
                raise ZeroDivisionError
        async with pool.checkout() as lease:
            assert lease.resource.raw.info.transaction_status == IDLE
            assert await lease.resource.fetch_value("SELECT to_regclass('never_kept')") is None
        assert pool.stats.opened == 1


async def test_an_error_of_the_client_s_own_costs_no_connection(postgres_url: str) -> None:
    async with postgres_pool(postgres_url, max_size=1) as pool:
        for sql in ("SELECT 1 / 0", "SELECT nonsense", "syntax error"):
            with pytest.raises(psycopg.Error):
                async with pool.checkout() as lease:
                    await lease.resource.execute(sql)
        await check_every_connection(pool, 1)
        assert pool.stats.opened == 1


async def leave_a_query_running(raw: TrioConnection[Any]) -> None:
    raw.pgconn.send_query(b"SELECT pg_sleep(100)")


async def leave_a_copy_open(raw: TrioConnection[Any]) -> None:
    raw.pgconn.send_query(b"COPY (SELECT 1) TO STDOUT")


async def leave_pipeline_mode_on(raw: TrioConnection[Any]) -> None:
    raw.pgconn.enter_pipeline_mode()


async def leave_autocommit_off(raw: TrioConnection[Any]) -> None:
    await raw.set_autocommit(False)


async def close_it(raw: TrioConnection[Any]) -> None:
    await raw.close()


@pytest.mark.parametrize(
    "leave",
    [leave_a_query_running, leave_a_copy_open, leave_pipeline_mode_on, leave_autocommit_off, close_it],
    ids=lambda leave: leave.__name__,
)
async def test_a_connection_left_in_the_middle_of_something_is_removed(postgres_url: str, leave: Any) -> None:  # noqa: ANN401
    async with postgres_pool(postgres_url, max_size=1) as pool:
        async with pool.checkout() as lease:
            await lease.resource.call(leave)
        await check_every_connection(pool, 1)
        assert pool.stats.opened == 2


async def test_a_statement_still_running_when_its_connection_is_closed_is_stopped(postgres_url: str) -> None:
    async with postgres_pool(postgres_url, max_size=1) as pool, pool.checkout() as lease:
        await lease.resource.call(leave_a_query_running)
        pid = lease.resource.raw.info.backend_pid
        assert ask(postgres_url, "SELECT count(*) FROM pg_stat_activity WHERE pid = %s", pid) == 1
    await until(lambda: ask(postgres_url, "SELECT count(*) FROM pg_stat_activity WHERE pid = %s", pid) == 0)


async def test_reset_discard_leaves_nothing_of_a_client_and_keeps_the_connection(postgres_url: str) -> None:
    async with postgres_pool(PostgresWorker(postgres_url, reset="discard", prepare_threshold=0), max_size=1) as pool:
        for leave_open in (False, True, False, False):
            async with pool.checkout() as lease:
                conn = lease.resource
                assert await conn.fetch_value("SHOW work_mem") == "4MB"
                assert await conn.fetch_value("SELECT to_regclass('mine')") is None
                assert await conn.fetch_value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
                await conn.execute("SET work_mem = '9MB'")
                await conn.execute("CREATE TEMPORARY TABLE mine ()")
                await conn.execute("SELECT pg_advisory_lock(77)")
                if leave_open:
                    await conn.execute("BEGIN")
        assert pool.stats.opened == 1


async def test_by_default_settings_stay_with_the_connection(postgres_url: str) -> None:
    async with postgres_pool(postgres_url, max_size=1) as pool:
        async with pool.checkout() as lease:
            await lease.resource.execute("SET work_mem = '9MB'")
        async with pool.checkout() as lease:
            assert await lease.resource.fetch_value("SHOW work_mem") == "9MB"


# What a connection is opened with.


async def test_configure_runs_once_for_every_connection(postgres_url: str) -> None:
    configured: list[TrioConnection[Any]] = []

    async def configure(raw: TrioConnection[Any]) -> None:
        await raw.execute("SET work_mem = '5MB'")
        configured.append(raw)

    async with postgres_pool(PostgresWorker(postgres_url, configure=configure), max_size=3) as pool:
        await check_every_connection(pool, 3)
        await check_every_connection(pool, 3)
        async with pool.checkout() as lease:
            assert await lease.resource.fetch_value("SHOW work_mem") == "5MB"
        assert len(configured) == 3
    assert all(raw.closed for raw in configured)


async def test_what_configure_sets_outlives_reset_discard(postgres_url: str) -> None:
    async def configure(raw: TrioConnection[Any]) -> None:
        await raw.execute("SET work_mem = '5MB'")

    async with postgres_pool(PostgresWorker(postgres_url, configure=configure, reset="discard"), max_size=1) as pool:
        for _ in range(3):
            async with pool.checkout() as lease:
                assert await lease.resource.fetch_value("SHOW work_mem") == "5MB"
                await lease.resource.execute("SET work_mem = '9MB'")
        assert pool.stats.opened == 1


@pytest.mark.parametrize("fault", ["raises", "leaves a transaction"])
async def test_a_configure_that_fails_leaves_no_connection_behind(postgres_url: str, fault: str) -> None:
    seen: list[TrioConnection[Any]] = []

    async def configure(raw: TrioConnection[Any]) -> None:
        seen.append(raw)
        await raw.execute("BEGIN")
        if fault == "raises":
            raise ZeroDivisionError

    worker = PostgresWorker(postgres_url, configure=configure)
    with pytest.raises(PoolUnavailable) as caught:
        async with postgres_pool(worker, on_open_failure="raise") as pool, pool.checkout():
            pass
    assert isinstance(caught.value.__cause__, ZeroDivisionError if fault == "raises" else psycopg.ProgrammingError)
    assert all(raw.closed for raw in seen)


async def test_statement_timeout_and_application_name_are_the_connection_s(postgres_url: str) -> None:
    worker = PostgresWorker(postgres_url, statement_timeout=0.05, application_name="the tests' own")
    async with postgres_pool(worker, max_size=1) as pool:
        async with pool.checkout() as lease:
            assert await lease.resource.fetch_value("SHOW application_name") == "the tests' own"
            assert await lease.resource.fetch_value("SHOW statement_timeout") == "50ms"
            with pytest.raises(psycopg.errors.QueryCanceled):
                await lease.resource.execute("SELECT pg_sleep(100)")
        await check_every_connection(pool, 1)
        assert pool.stats.opened == 1


async def test_statement_timeout_stands_beside_options_in_the_url(postgres_url: str) -> None:
    worker = PostgresWorker.from_url(f"{postgres_url}?options=-c%20work_mem%3D7MB&statement_timeout=1.5")
    async with postgres_pool(worker) as pool, pool.checkout() as lease:
        assert await lease.resource.fetch_value("SHOW work_mem") == "7MB"
        assert await lease.resource.fetch_value("SHOW statement_timeout") == "1500ms"


async def test_for_pgbouncer_nothing_is_prepared_and_the_timeout_is_the_transaction_s(postgres_url: str) -> None:
    worker = PostgresWorker(postgres_url, pgbouncer=True, statement_timeout=0.25)
    async with postgres_pool(worker, max_size=1) as pool, pool.checkout() as lease:
        conn = lease.resource
        for _ in range(10):
            await conn.fetch_value("SELECT %s::int", (1,))
        assert await conn.fetch_value("SELECT count(*) FROM pg_prepared_statements") == 0
        assert await conn.fetch_value("SHOW statement_timeout") == "0"
        await conn.begin("serializable", readonly=True)
        assert await conn.fetch_value("SHOW statement_timeout") == "250ms"
        assert await conn.fetch_value("SHOW transaction_isolation") == "serializable"
        await conn.commit()
        assert await conn.fetch_value("SHOW statement_timeout") == "0"


@pytest.mark.parametrize(("threshold", "prepared"), [(0, 1), (3, 1), (None, 0)])
async def test_prepare_threshold_is_the_driver_s(postgres_url: str, threshold: int | None, prepared: int) -> None:
    worker = PostgresWorker(postgres_url, prepare_threshold=threshold)
    async with postgres_pool(worker, max_size=1) as pool, pool.checkout() as lease:
        for _ in range(4):
            await lease.resource.fetch_value("SELECT %s::int", (1,))
        count = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%::int'"
        assert await lease.resource.fetch_value(count) == prepared


# Deaths.


async def terminate_all(url: str) -> None:
    """End every session but this one; returns when they are gone."""
    everybody = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    await trio.to_thread.run_sync(ask, url, f"{everybody} AND backend_type = 'client backend'")


async def test_a_connection_that_was_closed_while_idle_is_never_lent(own_postgres: PostgresServer) -> None:
    async with postgres_pool(own_postgres.url, max_size=3) as pool:
        before = await check_every_connection(pool, 3)
        await terminate_all(own_postgres.url)
        after = await check_every_connection(pool, 3)
        assert not set(before) & set(after)


async def test_after_a_restart_no_client_sees_an_error(own_postgres: PostgresServer) -> None:
    async with postgres_pool(own_postgres.url, max_size=3) as pool:
        await check_every_connection(pool, 3)
        await trio.to_thread.run_sync(own_postgres.restart)
        await check_every_connection(pool, 3)


@pytest.mark.usefixtures("early_watch")
async def test_an_idle_connection_s_end_is_noticed_without_a_client_and_made_good(
    own_postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    deaths = Deaths()
    async with postgres_pool(own_postgres.url, min_size=2, max_size=2, observers=[deaths]) as pool:
        before = await check_every_connection(pool, 2)
        await trio.sleep(3 * REST)
        await terminate_all(own_postgres.url)
        await until(lambda: pool.stats.opened == 4 and pool.stats.idle == 2)
        assert [type(error) for error in deaths.errors] == [psycopg.errors.AdminShutdown] * 2
        assert not set(before) & set(await check_every_connection(pool, 2))
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.usefixtures("early_watch")
async def test_watching_does_not_disturb_a_lease_that_comes_in_between(postgres_url: str) -> None:
    async with postgres_pool(postgres_url, max_size=1) as pool:
        for _ in range(2):
            await check_every_connection(pool, 1)
            await trio.sleep(3 * REST)
        # Watched by now; the watch must leave the socket at once, and stay away.
        async with pool.checkout() as lease:
            for _ in range(4):
                assert await lease.resource.fetch_value("SELECT pg_sleep(0.1), 1") is not None
        assert pool.stats.opened == 1


@pytest.mark.usefixtures("early_watch")
async def test_what_an_idle_server_says_is_no_death(postgres_url: str) -> None:
    async with postgres_pool(postgres_url, max_size=1) as pool:
        async with pool.checkout() as lease:
            await lease.resource.execute("LISTEN chatter")
        ask(postgres_url, "NOTIFY chatter")
        await check_every_connection(pool, 1)
        await trio.sleep(3 * REST)
        ask(postgres_url, "NOTIFY chatter")
        await trio.sleep(0.1)
        await check_every_connection(pool, 1)
        assert pool.stats.opened == 1


async def test_a_ping_finds_what_a_silent_network_hides(own_postgres: PostgresServer) -> None:
    async with postgres_pool(own_postgres.url, max_size=1, ping_after=0.0, ping_timeout=0.2) as pool:
        before = await check_every_connection(pool, 1)
        began = trio.current_time()
        with own_postgres.frozen():
            with pytest.raises(CheckoutTimeout):
                async with pool.checkout(timeout=0.1):
                    pass
            await until(lambda: pool.stats.lost)
        # Nobody waits for the driver to come to terms with a server that is not there.
        assert trio.current_time() - began < 3.0
        assert await check_every_connection(pool, 1) != before


async def test_a_server_that_is_down_is_waited_for(own_postgres: PostgresServer) -> None:
    async with postgres_pool(own_postgres.url, max_size=1) as pool:
        await check_every_connection(pool, 1)
        await trio.to_thread.run_sync(own_postgres.kill)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, own_postgres.start)
            await check_every_connection(pool, 1)


# What errors mean.


@pytest.mark.parametrize(
    ("state", "verdict"),
    [
        (None, Verdict.OK),
        ("42601", Verdict.OK),
        ("40001", Verdict.OK),
        ("57014", Verdict.OK),
        ("57P01", Verdict.REMOVE),
        ("08006", Verdict.REMOVE),
        ("XX000", Verdict.REMOVE),
        ("58030", Verdict.REMOVE),
        ("26000", Verdict.REMOVE),
        ("53200", Verdict.REMOVE),
        ("53300", Verdict.OK),
        ("57P02", Verdict.REFRESH),
        ("25006", Verdict.REFRESH),
    ],
)
def test_the_verdict_on_an_sqlstate(state: str | None, verdict: Verdict) -> None:
    error = psycopg.errors.lookup(state)("x") if state else psycopg.OperationalError("x")
    assert verdict_on(error) is verdict


def test_last_words_become_the_driver_s_error() -> None:
    assert isinstance(error_from("57P01", "bye"), psycopg.errors.AdminShutdown)
    assert type(error_from("?????", "bye")) is psycopg.OperationalError
    assert type(error_from(None, "bye")) is psycopg.OperationalError


async def test_a_server_that_became_a_standby_loses_every_connection_after_one_failed_write(
    own_postgres: PostgresServer,
) -> None:
    ask(own_postgres.url, "CREATE TABLE t (n int)")
    await trio.to_thread.run_sync(own_postgres.stop)
    (own_postgres.data / "standby.signal").touch()
    await trio.to_thread.run_sync(own_postgres.start)
    async with postgres_pool(own_postgres.url, max_size=3) as pool:
        before = await check_every_connection(pool, 3)
        async with pool.checkout() as lease:
            await lease.resource.begin(readonly=True)
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                await lease.resource.execute("INSERT INTO t VALUES (1)")
            await lease.resource.rollback()
        assert set(before) == set(await check_every_connection(pool, 3))
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            async with pool.checkout() as lease:
                await lease.resource.execute("INSERT INTO t VALUES (1)")
        await trio.to_thread.run_sync(ask, own_postgres.url, "SELECT pg_promote()")
        assert not set(before) & set(await check_every_connection(pool, 3))
        async with pool.checkout() as lease:
            assert await lease.resource.execute("INSERT INTO t VALUES (1)") == 1


@pytest.mark.parametrize(("pause", "opened"), [(60.0, 3 + 3 + 3), (0.0, 3 + 4 * 3)])
async def test_where_a_refresh_does_not_help_there_is_no_second_one_soon(
    own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, pause: float, opened: int
) -> None:
    monkeypatch.setattr(_worker, "REFRESH_PAUSE", pause)
    ask(own_postgres.url, "CREATE TABLE t (n int)")
    await trio.to_thread.run_sync(own_postgres.stop)
    (own_postgres.data / "standby.signal").touch()
    await trio.to_thread.run_sync(own_postgres.start)
    async with postgres_pool(own_postgres.url, max_size=3) as pool:
        for _ in range(4):
            await check_every_connection(pool, 3)
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                async with pool.checkout() as lease:
                    await lease.resource.execute("INSERT INTO t VALUES (1)")
        await check_every_connection(pool, 3)
        assert pool.stats.opened == opened


async def test_after_a_crash_of_the_server_every_connection_goes_at_once(own_postgres: PostgresServer) -> None:
    async with postgres_pool(own_postgres.url, max_size=3) as pool:
        pids = set(await check_every_connection(pool, 3))
        assert pool.stats.idle == 3
        async with trio.open_nursery() as nursery, pool.checkout() as lease:
            (victim, *_) = pids - {lease.resource.raw.info.backend_pid}
            nursery.start_soon(kill_when_busy, own_postgres, victim)
            with pytest.raises(psycopg.OperationalError):
                await lease.resource.execute("SELECT pg_sleep(20)")
        assert pool.stats.idle == 0


@pytest.mark.usefixtures("early_watch")
async def test_idle_connections_hear_that_the_server_has_crashed(own_postgres: PostgresServer) -> None:
    deaths = Deaths()
    async with postgres_pool(own_postgres.url, max_size=3, observers=[deaths]) as pool:
        pids = await check_every_connection(pool, 3)
        await trio.sleep(3 * REST)
        own_postgres.kill_backend(pids[0])
        await until(lambda: len(deaths.errors) == 3)
    assert sum(isinstance(error, psycopg.errors.CrashShutdown) for error in deaths.errors) == 2


async def kill_when_busy(server: PostgresServer, pid: int) -> None:
    await trio.sleep(0.1)
    server.kill_backend(pid)


async def test_a_write_in_a_session_that_was_set_to_read_only_retires_nobody(postgres_url: str) -> None:
    async with postgres_pool(postgres_url, max_size=2) as pool:
        before = await check_every_connection(pool, 2)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            async with pool.checkout() as lease:
                await lease.resource.execute("BEGIN READ ONLY")
                await lease.resource.execute("CREATE TABLE never ()")
        assert set(before) == set(await check_every_connection(pool, 2))


async def test_after_a_change_of_a_table_stale_plans_fail_once_and_not_on_every_connection(
    own_postgres: PostgresServer,
) -> None:
    ask(own_postgres.url, "CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
    worker = PostgresWorker(own_postgres.url, prepare_threshold=0)
    async with postgres_pool(worker, max_size=3) as pool:
        leases = [await pool.acquire(owner=None) for _ in range(3)]
        for lease in leases:
            assert await lease.resource.fetch_all("SELECT * FROM t") == [(1,)]
            lease.release()
        ask(own_postgres.url, "ALTER TABLE t ADD COLUMN m int DEFAULT 2")
        failures = 0
        for _ in range(6):
            try:
                async with pool.checkout() as lease:
                    assert await lease.resource.fetch_all("SELECT * FROM t") == [(1, 2)]
            except psycopg.errors.FeatureNotSupported:
                failures += 1
        assert failures == 1
