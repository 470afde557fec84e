import contextlib
import random
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing

import psycopg
import pytest
import trio
import trio.lowlevel
from psycopg import pq

from nimblepool.testing import sweep
from tests.database.postgres.trio_connections import (
    PATIENCE,
    QUIET,
    Act,
    Conn,
    Pair,
    pair,
    streamed,
    until_active,
    until_free,
    value,
)

ROWS = "SELECT n, repeat('x', 200) FROM generate_series(1, 3000) AS n"


@pytest.fixture
async def both(postgres_url: str) -> AsyncIterator[Pair]:
    async with pair(postgres_url) as found:
        await found.conn.execute("CREATE TEMP TABLE t (n int, s text)")
        await found.conn.commit()
        # A cancel on a healthy server must never need it.
        found.conn.cancel_timeout = PATIENCE
        yield found


async def select(conn: Conn) -> None:
    assert len(await (await conn.execute(ROWS)).fetchall()) == 3000
    await conn.execute("SELECT pg_sleep(0.002)")


async def prepared(conn: Conn) -> None:
    for n in range(3):
        cursor = await conn.execute("SELECT %s::int4 + 1 FROM pg_sleep(0.001)", (n,), prepare=True)
        assert await cursor.fetchone() == (n + 1,)


async def several_statements(conn: Conn) -> None:
    await conn.execute("SELECT pg_sleep(0.002); SELECT pg_sleep(0.002)")


async def execute_many(conn: Conn) -> None:
    async with conn.cursor() as cursor:
        await cursor.executemany("INSERT INTO t SELECT %s FROM pg_sleep(0.001)", [(n,) for n in range(5)])
        await cursor.executemany("SELECT %s::int", [(n,) for n in range(5)], returning=True)


async def server_cursor(conn: Conn) -> None:
    async with conn.cursor("numbers", withhold=conn.autocommit) as cursor:
        cursor.itersize = 1000
        await cursor.execute("SELECT generate_series(1, 3000)")
        assert len([row async for row in cursor]) == 3000


async def stream(conn: Conn) -> None:
    async with streamed(conn, ROWS, size=500) as rows:
        assert len([row async for row in rows]) == 3000


async def stream_left_early(conn: Conn) -> None:
    async with streamed(conn, ROWS) as rows:
        await anext(rows)
        await trio.lowlevel.checkpoint()


async def copy_in(conn: Conn) -> None:
    async with conn.cursor().copy("COPY t FROM STDIN") as copy:
        for n in range(30):
            await copy.write_row((n, "x" * 10_000))
            if n % 10 == 0:
                await trio.lowlevel.checkpoint()


async def copy_out(conn: Conn) -> None:
    async with conn.cursor().copy(f"COPY ({ROWS}) TO STDOUT") as copy:
        async for _ in copy:
            pass
        await trio.lowlevel.checkpoint()


async def copy_out_left_early(conn: Conn) -> None:
    async with conn.cursor().copy(f"COPY ({ROWS}) TO STDOUT") as copy:
        await copy.read()
        await trio.lowlevel.checkpoint()
        raise trio.TooSlowError


async def pipeline(conn: Conn) -> None:
    async with conn.pipeline() as running:
        first = await conn.execute("SELECT 1 FROM pg_sleep(0.001)", prepare=True)
        await conn.execute("INSERT INTO t VALUES (%s)", (1,), prepare=True)
        assert await first.fetchone() == (1,)
        await running.sync()
        await conn.execute("SELECT pg_sleep(0.001)")
        await trio.lowlevel.checkpoint()


async def big_pipeline(conn: Conn) -> None:
    async with conn.pipeline():
        await conn.execute("SELECT pg_sleep(0.01)")
        # The server does not read while it sleeps, so that this waits to be sent, even at the end of the pipeline.
        await conn.execute("SELECT length(%s)", ("x" * 8_000_000,))


async def transaction(conn: Conn) -> None:
    async with conn.transaction():
        await conn.execute("INSERT INTO t VALUES (1)")
        async with conn.transaction():
            await conn.execute("SELECT pg_sleep(0.001)")
            await trio.lowlevel.checkpoint()


async def transaction_in_a_pipeline(conn: Conn) -> None:
    async with conn.pipeline(), conn.transaction():
        await conn.execute("INSERT INTO t VALUES (1)")
        await trio.lowlevel.checkpoint()
        await conn.execute("SELECT pg_sleep(0.001)")


async def notifications(conn: Conn) -> None:
    await conn.execute("LISTEN news")
    await conn.execute("NOTIFY news")
    await conn.commit()
    async with aclosing(conn.notifies(timeout=10, stop_after=1)) as notes:
        async for _ in notes:
            await trio.lowlevel.checkpoint()
    async with aclosing(conn.notifies(timeout=0.001)) as notes:
        async for _ in notes:
            pass


async def big_parameter(conn: Conn) -> None:
    assert await value(conn, "SELECT length(%s)", "x" * 8_000_000) == 8_000_000


async def failing(conn: Conn) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        await conn.execute("SELECT 1 / 0 FROM pg_sleep(0.001)")


ACTS: list[Act] = [
    select, prepared, several_statements, execute_many, server_cursor, stream, stream_left_early, copy_in, copy_out,
    copy_out_left_early, pipeline, big_pipeline, transaction, transaction_in_a_pipeline, notifications, big_parameter,
    failing,
]  # fmt: skip


@pytest.mark.parametrize("autocommit", [False, True])
@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
async def test_a_cancel_at_any_checkpoint_leaves_the_connection_in_step(both: Pair, act: Act, autocommit: bool) -> None:
    await both.conn.set_autocommit(autocommit)

    async def scenario() -> None:
        try:
            await act(both.conn)
        except trio.TooSlowError:
            assert act is copy_out_left_early

    assert await sweep(scenario, after=both.check) > 0
    # And it goes on working, with all that psycopg remembers of the session.
    await scenario()


async def test_500_cancels_at_random_times(both: Pair) -> None:
    dice = random.Random(5)
    cancelled = 0
    with trio.fail_after(120):
        for _ in range(500):
            await both.conn.set_autocommit(dice.random() < 0.5)
            act = dice.choice(ACTS)
            with trio.move_on_after(dice.random() * 0.012) as scope:
                try:
                    await act(both.conn)
                except trio.TooSlowError:
                    assert act is copy_out_left_early
            cancelled += scope.cancelled_caught
            await both.check()
    assert 100 < cancelled < 500


async def test_the_server_stops_at_once(both: Pair) -> None:
    before = trio.current_time()
    with trio.move_on_after(0.05) as scope:
        await both.conn.execute("SELECT pg_sleep(60)")
    assert scope.cancelled_caught
    assert trio.current_time() - before < PATIENCE / 2
    assert both.conn.pgconn.transaction_status == pq.TransactionStatus.INERROR
    await both.check()


async def test_a_cancel_before_the_server_has_read_the_statement_is_not_lost(both: Pair) -> None:
    # The parameter is too big for the socket's buffers, so that the server is still idle, reading, when this is
    # cancelled; a request to cancel does nothing to an idle server.
    scope = trio.CancelScope()

    async def cancel_at_once() -> None:
        scope.cancel()

    before = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel_at_once)
        with scope:
            await both.conn.execute("SELECT pg_sleep(60), length(%s)", ("x" * 50_000_000,))
    assert scope.cancelled_caught
    assert trio.current_time() - before < PATIENCE / 2
    await both.check()


async def test_a_savepoint_outlives_a_cancelled_statement(both: Pair) -> None:
    conn = both.conn
    async with conn.transaction():
        await conn.execute("INSERT INTO t VALUES (1)")
        with trio.move_on_after(0.02) as scope:
            async with conn.transaction():
                await conn.execute("INSERT INTO t SELECT 2 FROM pg_sleep(60)")
        assert scope.cancelled_caught
        await conn.execute("INSERT INTO t VALUES (3)")
    assert await value(conn, "SELECT array_agg(n) FROM t") == [1, 3]


async def test_a_wait_that_needs_no_waiting_notices_a_cancellation(both: Pair) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await both.conn.execute("INSERT INTO t VALUES (1)")
    assert scope.cancelled_caught
    # Nothing was sent.
    assert both.conn.pgconn.transaction_status == pq.TransactionStatus.IDLE
    assert await value(both.conn, "SELECT count(*) FROM t") == 0


@pytest.mark.parametrize("ending", ["commit", "rollback"])
async def test_the_end_of_a_transaction_is_not_broken_off(both: Pair, ending: str) -> None:
    conn = both.conn
    await conn.execute("CREATE TEMP TABLE slow (n int)")
    await conn.execute(
        "CREATE FUNCTION pg_temp.dally() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN PERFORM pg_sleep(0.2); RETURN NULL; END $$"
    )
    await conn.execute(
        "CREATE CONSTRAINT TRIGGER dally AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION pg_temp.dally()"
    )
    await conn.commit()
    await conn.execute("INSERT INTO slow VALUES (1)")
    with trio.move_on_after(0.05):
        await getattr(conn, ending)()
    assert conn.pgconn.transaction_status == pq.TransactionStatus.IDLE
    assert await value(conn, "SELECT count(*) FROM slow") == (1 if ending == "commit" else 0)
    await both.check()


async def test_a_cancelled_task_can_roll_back_but_begins_no_commit(both: Pair) -> None:
    conn = both.conn
    await conn.execute("INSERT INTO t VALUES (1)")
    with trio.CancelScope() as scope:
        scope.cancel()
        await conn.commit()
    assert scope.cancelled_caught
    assert conn.pgconn.transaction_status == pq.TransactionStatus.INTRANS
    with trio.CancelScope() as scope:
        scope.cancel()
        await conn.rollback()
    assert conn.pgconn.transaction_status == pq.TransactionStatus.IDLE


async def test_a_cancelled_block_is_rolled_back(both: Pair) -> None:
    conn = both.conn
    await conn.set_autocommit(True)
    with trio.move_on_after(0.02) as scope:
        async with conn.transaction():
            await conn.execute("INSERT INTO t VALUES (1)")
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert conn.pgconn.transaction_status == pq.TransactionStatus.IDLE
    assert await value(conn, "SELECT count(*) FROM t") == 0


async def test_a_cancelled_server_side_cursor_is_closed(both: Pair) -> None:
    conn = both.conn
    with trio.move_on_after(0.02) as scope:
        async with conn.cursor("numbers", withhold=True) as cursor:
            await cursor.execute("SELECT generate_series(1, 10)")
            await conn.commit()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert await value(conn, "SELECT count(*) FROM pg_cursors") == 0


async def test_a_cancelled_async_with_closes_the_connection(postgres_url: str) -> None:
    async with pair(postgres_url) as both:
        with trio.move_on_after(0.02):
            async with both.conn:
                await both.conn.execute("SELECT pg_sleep(60)")
        assert both.conn.closed


async def test_a_commit_that_is_cancelled_on_leaving_closes_the_connection(postgres_url: str) -> None:
    async with pair(postgres_url) as both:
        with trio.CancelScope() as scope:
            async with both.conn:
                await both.conn.execute("SELECT 1")
                scope.cancel()
        assert scope.cancelled_caught
        assert both.conn.closed


async def test_a_cancel_of_one_task_does_no_harm_to_another_on_the_same_connection(both: Pair) -> None:
    conn = both.conn
    answers: list[int] = []

    async def ask(n: int, scope: trio.CancelScope) -> None:
        with scope:
            answers.append(await value(conn, "SELECT %s::int FROM pg_sleep(0.05)", n))

    await conn.set_autocommit(True)
    scopes = [trio.CancelScope() for _ in range(4)]
    async with trio.open_nursery() as nursery:
        for n, scope in enumerate(scopes):
            nursery.start_soon(ask, n, scope)
            await until_active(both.observer, conn.pgconn.backend_pid)
        # The one at work, and one in the queue.
        scopes[0].cancel()
        scopes[2].cancel()
    assert answers == [1, 3]
    await both.check()


async def test_a_pipeline_goes_on_after_a_statement_was_cancelled(both: Pair) -> None:
    conn = both.conn
    await conn.set_autocommit(True)
    async with conn.pipeline():
        slow = await conn.execute("SELECT 1 FROM pg_sleep(60)")
        await conn.execute("SELECT %s::int + 1", (1,), prepare=True)
        with trio.move_on_after(0.02) as scope:
            await slow.fetchone()
        assert scope.cancelled_caught
        next_one = await conn.execute("SELECT 5")
        assert await next_one.fetchone() == (5,)
    # It was never prepared, although it was on its way.
    cursor = await conn.execute("SELECT %s::int + 1", (1,), prepare=True)
    assert await cursor.fetchone() == (2,)
    await both.check()


async def test_a_pipeline_that_ends_cancelled_while_another_task_works_is_not_left_by_half(both: Pair) -> None:
    conn = both.conn
    inside = trio.Event()

    async def work() -> None:
        await inside.wait()
        with contextlib.suppress(psycopg.Error):
            await (await conn.execute("SELECT pg_sleep(0.1)")).fetchone()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        with trio.CancelScope() as scope:
            async with conn.pipeline():
                inside.set()
                await trio.testing.wait_all_tasks_blocked()
                assert conn.lock.locked()
                scope.cancel()
    if not conn.closed:
        await both.check()


async def test_another_task_can_ask_the_server_to_stop(both: Pair) -> None:
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def ask_to_stop() -> None:
            await until_active(both.observer, both.conn.pgconn.backend_pid)
            await both.conn.cancel_safe()

        with pytest.raises(psycopg.errors.QueryCanceled):
            await both.conn.execute("SELECT pg_sleep(60)")
    await both.check()


async def test_an_abandoned_stream_gives_the_connection_back(both: Pair) -> None:
    conn = both.conn

    async def abandon() -> None:
        rows = conn.cursor().stream("SELECT generate_series(1, 100000)")
        await anext(rows)

    with pytest.warns(ResourceWarning, match="garbage collected"):
        await abandon()
    assert conn.lock.locked()
    # A task of trio's own closes it.
    await until_free(conn)
    await both.check()


def test_ctrl_c_stops_the_server_too(postgres_url: str) -> None:
    statuses: list[int] = []

    async def interrupt(observer: Conn, pid: int) -> None:
        await until_active(observer, pid)
        signal.raise_signal(signal.SIGINT)

    async def run() -> None:
        async with pair(postgres_url) as both:
            trio.lowlevel.spawn_system_task(interrupt, both.observer, both.conn.pgconn.backend_pid)
            try:
                await both.conn.execute("SELECT pg_sleep(60)")
            finally:
                statuses.append(both.conn.pgconn.transaction_status)

    # A process that was started in the background may ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            trio.run(run)
    finally:
        signal.signal(signal.SIGINT, before)
    assert statuses
    assert QUIET.issuperset(statuses)
