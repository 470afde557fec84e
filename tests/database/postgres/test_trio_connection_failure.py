import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any, cast

import psutil
import psycopg
import pytest
import trio
from psycopg.conninfo import make_conninfo

from nimblepool.testing import sweep
from nimblepool_database._postgres._trio_connection import TrioConnection
from tests.database.postgres.server import PostgresServer
from tests.database.postgres.trio_connections import PATIENCE, Act, Conn, connected, pair, streamed, until_active, value

GRACE = 0.2
"""The `cancel_timeout` of connections to a server that will not answer."""


def open_files() -> int:
    count: int = psutil.Process().num_fds()
    return count


# --- a server that does not answer ------------------------------------------------------------------------------------


async def execute(conn: Conn) -> None:
    await conn.execute("SELECT 1")


async def commit(conn: Conn) -> None:
    await conn.commit()


async def roll_back(conn: Conn) -> None:
    await conn.rollback()


async def execute_many(conn: Conn) -> None:
    await conn.cursor().executemany("SELECT %s", [(n,) for n in range(10)])


async def block(conn: Conn) -> None:
    async with conn.transaction():
        await conn.execute("SELECT 1")


async def block_in_a_pipeline(conn: Conn) -> None:
    async with conn.pipeline(), conn.transaction():
        await conn.execute("SELECT 1")


async def copy_in(conn: Conn) -> None:
    async with conn.cursor().copy("COPY t FROM STDIN") as copy:
        while True:
            await copy.write_row((1,))


async def copy_out(conn: Conn) -> None:
    async with conn.cursor().copy("COPY (SELECT generate_series(1, 9)) TO STDOUT") as copy:
        await copy.read()


async def stream(conn: Conn) -> None:
    async with streamed(conn, "SELECT 1") as rows:
        await anext(rows)


async def server_cursor(conn: Conn) -> None:
    async with conn.cursor("named") as cursor:
        await cursor.execute("SELECT 1")


ACTS: list[Act] = [
    execute, commit, roll_back, execute_many, block, block_in_a_pipeline, copy_in, copy_out, stream, server_cursor,
]  # fmt: skip


async def test_a_frozen_server_holds_nobody_beyond_the_deadline(own_postgres: PostgresServer) -> None:
    ended: dict[str, float] = {}

    async def give_up(conn: Conn, act: Act) -> None:
        started = trio.current_time()
        with trio.move_on_after(0.1) as scope:
            await act(conn)
        assert scope.cancelled_caught
        assert conn.broken
        ended[act.__name__] = trio.current_time() - started

    conns = [await TrioConnection.connect(own_postgres.url) for _ in ACTS]
    for conn in conns:
        conn.cancel_timeout = GRACE
        await conn.execute("CREATE TEMP TABLE t (n int)")
    with own_postgres.frozen():
        async with trio.open_nursery() as nursery:
            for conn, act in zip(conns, ACTS, strict=True):
                nursery.start_soon(give_up, conn, act)
    assert len(ended) == len(ACTS)
    # A busy machine takes its time; by default it would be 5 s.
    assert max(ended.values()) < 0.1 + 2 * GRACE + 1.0


async def cancelled_in_mid_copy(conn: Conn, freeze: Callable[[], Awaitable[None]]) -> None:
    async with conn.cursor().copy("COPY (SELECT generate_series(1, 10000000)) TO STDOUT") as copy:
        await copy.read()
        await freeze()
        await trio.sleep_forever()


async def cancelled_in_mid_stream(conn: Conn, freeze: Callable[[], Awaitable[None]]) -> None:
    async with streamed(conn, "SELECT generate_series(1, 10000000)") as rows:
        await anext(rows)
        await freeze()
        await trio.sleep_forever()


async def cancelled_in_mid_pipeline(conn: Conn, freeze: Callable[[], Awaitable[None]]) -> None:
    async with conn.pipeline():
        await (await conn.execute("SELECT 1")).fetchone()
        await freeze()
        await trio.sleep_forever()


async def left_in_mid_stream(conn: Conn, freeze: Callable[[], Awaitable[None]]) -> None:
    async with streamed(conn, "SELECT generate_series(1, 10000000)") as rows:
        await anext(rows)
        await freeze()


async def cancelled_in_mid_block(conn: Conn, freeze: Callable[[], Awaitable[None]]) -> None:
    async with conn.transaction():
        await conn.execute("SELECT 1")
        await freeze()
        await trio.sleep_forever()


@pytest.mark.parametrize(
    "act",
    [
        cancelled_in_mid_copy,
        cancelled_in_mid_stream,
        cancelled_in_mid_pipeline,
        left_in_mid_stream,
        cancelled_in_mid_block,
    ],
    ids=lambda act: act.__name__,
)
async def test_a_server_that_freezes_in_mid_work_holds_nobody(
    own_postgres: PostgresServer, act: Callable[[Conn, Callable[[], Awaitable[None]]], Awaitable[None]]
) -> None:
    async with connected(own_postgres.url) as conn:
        conn.cancel_timeout = GRACE
        with trio.CancelScope() as scope:

            async def freeze() -> None:
                await trio.to_thread.run_sync(own_postgres.freeze)
                scope.deadline = trio.current_time() + 0.05

            await act(conn, freeze)
        late = trio.current_time() - scope.deadline
        own_postgres.thaw()
        assert late < 2 * GRACE
        assert conn.broken


async def test_a_frozen_server_does_not_answer_a_request_to_cancel(own_postgres: PostgresServer) -> None:
    async with connected(own_postgres.url) as conn:
        with own_postgres.frozen(), pytest.raises(psycopg.errors.CancellationTimeout):
            await conn.cancel_safe(timeout=0.1)
        assert await value(conn, "SELECT 1") == 1


# --- a server that dies -----------------------------------------------------------------------------------------------


async def test_a_backend_that_is_killed_in_mid_query_is_an_error_of_psycopgs(own_postgres: PostgresServer) -> None:
    async with pair(own_postgres.url) as both:
        pid = both.conn.pgconn.backend_pid

        async def kill() -> None:
            await until_active(both.observer, pid)
            own_postgres.kill_backend(pid)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill)
            with pytest.raises(psycopg.OperationalError), trio.fail_after(PATIENCE):
                await both.conn.execute("SELECT pg_sleep(60)")
        assert both.conn.broken


async def test_a_server_that_is_killed_is_an_error_of_psycopgs(own_postgres: PostgresServer) -> None:
    async with pair(own_postgres.url) as both:

        async def kill() -> None:
            await until_active(both.observer, both.conn.pgconn.backend_pid)
            await trio.to_thread.run_sync(own_postgres.kill)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill)
            with pytest.raises(psycopg.OperationalError), trio.fail_after(PATIENCE):
                async with both.conn.cursor().copy("COPY (SELECT pg_sleep(60)) TO STDOUT") as copy:
                    await copy.read()
        assert both.conn.broken
        with pytest.raises(psycopg.OperationalError, match="connection is closed"):
            await both.conn.execute("SELECT 1")


async def test_closing_a_connection_wakes_who_waits_for_it(postgres_url: str) -> None:
    async with pair(postgres_url) as both:
        async with trio.open_nursery() as nursery:

            async def close() -> None:
                await until_active(both.observer, both.conn.pgconn.backend_pid)
                await both.conn.close()

            nursery.start_soon(close)
            with pytest.raises(psycopg.OperationalError, match="closed while"), trio.fail_after(PATIENCE):
                await both.conn.execute("SELECT pg_sleep(60)")
        assert both.conn.closed
        await both.conn.close()


async def test_two_waits_for_one_socket_close_the_connection(postgres_url: str) -> None:
    # A program that waits for the socket by itself has broken the rules; better no connection than one out of step.
    async with connected(postgres_url) as conn, trio.open_nursery() as nursery:

        async def wait() -> None:
            with suppress(trio.ClosedResourceError):
                await trio.lowlevel.wait_readable(conn.fileno())

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(psycopg.OperationalError, match="closed while"):
            await conn.execute("SELECT 1")
        assert conn.broken


# --- long work that never has to wait ---------------------------------------------------------------------------------


async def copy_in_without_end(conn: Conn) -> None:
    async with conn.cursor().copy("COPY t FROM STDIN") as copy:
        while True:
            await copy.write_row((1,))


async def copy_out_without_end(conn: Conn) -> None:
    async with conn.cursor().copy("COPY (SELECT generate_series(1, 100000000)) TO STDOUT") as copy:
        async for _ in copy.rows():
            pass


async def pipeline_without_end(conn: Conn) -> None:
    async with conn.pipeline():
        while True:
            await conn.execute("INSERT INTO t VALUES (1)")


async def execute_many_without_end(conn: Conn) -> None:
    def rows() -> Iterator[tuple[int]]:
        while True:
            yield (1,)

    await conn.cursor().executemany("INSERT INTO t VALUES (%s)", rows())


@pytest.mark.parametrize(
    "act",
    [copy_in_without_end, copy_out_without_end, pipeline_without_end, execute_many_without_end],
    ids=lambda act: act.__name__,
)
async def test_long_work_lets_other_tasks_run_and_notices_its_deadline(postgres_url: str, act: Act) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.sleep(0.001)
            turns += 1

    async with pair(postgres_url) as both, trio.open_nursery() as nursery:
        await both.conn.execute("CREATE TEMP TABLE t (n int)")
        await both.conn.commit()
        nursery.start_soon(count)
        started = trio.current_time()
        with trio.move_on_after(0.3) as scope:
            await act(both.conn)
        elapsed = trio.current_time() - started
        nursery.cancel_scope.cancel()
        assert scope.cancelled_caught
        assert elapsed < 0.3 + PATIENCE / 2
        # One in 5 ms is due. The rows of a COPY are gathered first, without a wait, which takes long in pure Python.
        assert turns > 5
    async with connected(postgres_url) as conn:
        assert await value(conn, "SELECT 1") == 1


# --- connecting -------------------------------------------------------------------------------------------------------


async def test_several_hosts_are_tried_in_turn(postgres: PostgresServer) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        conninfo = make_conninfo(postgres.conninfo, host="127.0.0.1,localhost", port=f"{port},{postgres.port}")
        async with connected(conninfo) as conn:
            assert conn.info.port == postgres.port
        with pytest.raises(psycopg.OperationalError, match="All failures were") as caught:
            await TrioConnection.connect(make_conninfo(conninfo, port=f"{port},{port}"))
    assert str(caught.value).count("refused") >= 2
    assert postgres.password not in str(caught.value)


async def test_an_unknown_host_and_a_wrong_password_are_errors_of_psycopgs(postgres: PostgresServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="resolve"):
        await TrioConnection.connect(make_conninfo(postgres.conninfo, host="nowhere.invalid"))
    with pytest.raises(psycopg.OperationalError, match="password"):
        await TrioConnection.connect(make_conninfo(postgres.conninfo, password="wrong"))
    with pytest.raises(psycopg.ProgrammingError):
        await TrioConnection.connect("no_such_parameter=1")


async def test_a_deaf_host_is_given_up_after_connect_timeout() -> None:
    files = open_files()
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        port = deaf.getsockname()[1]
        with pytest.raises(psycopg.errors.ConnectionTimeout), trio.fail_after(PATIENCE):
            await TrioConnection.connect(f"host=127.0.0.1 port={port} connect_timeout=2")
    assert open_files() == files


async def test_a_cancelled_connect_leaves_no_socket(postgres_url: str) -> None:
    files = open_files()

    async def scenario() -> None:
        conn = await TrioConnection.connect(postgres_url)
        await conn.close()

    async def after() -> None:
        assert open_files() == files

    assert await sweep(scenario, after=after) > 4


async def test_a_failing_context_leaves_no_connection(postgres_url: str) -> None:
    files = open_files()
    with pytest.raises(AttributeError):
        await TrioConnection.connect(postgres_url, context=cast("Any", object()))
    assert open_files() == files


async def test_an_old_libpq_is_refused(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psycopg.pq, "version", lambda: 160004)
    with pytest.raises(psycopg.NotSupportedError, match=r"needs libpq 17 or newer.* 16\.4"):
        await TrioConnection.connect(postgres_url)
