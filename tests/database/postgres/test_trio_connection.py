import asyncio
import select
import threading
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
import trio
from psycopg import waiting
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.rows import DictRow, class_row, dict_row, namedtuple_row
from psycopg.types.json import Jsonb

from nimblepool_database._postgres._trio_connection import TrioConnection
from tests.database.postgres.trio_connections import Conn, connected, streamed, value


@dataclass
class Point:
    x: int
    y: int


async def test_it_is_an_async_connection_of_psycopg(postgres_url: str) -> None:
    async with await TrioConnection.connect(postgres_url) as conn:
        assert isinstance(conn, psycopg.AsyncConnection)
        assert await value(conn, "SELECT 1") == 1
    assert conn.closed
    assert not conn.broken


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize(
    "given",
    [
        True,
        7,
        2**40,
        Decimal("3.14"),
        "Ωmega\n'\\",
        b"\0\xff",
        datetime(2026, 11, 24, 9, 0, tzinfo=UTC),
        UUID("12345678-1234-5678-1234-567812345678"),
        [[1, 2], [3, None]],
        None,
    ],
)
async def test_values_come_back_as_they_went(postgres_url: str, given: object, binary: bool) -> None:
    async with connected(postgres_url) as conn:
        cursor = await conn.execute("SELECT %s", (given,), binary=binary)
        row = await cursor.fetchone()
        assert row is not None
        assert row[0] == given


async def test_json_comes_back_as_it_went(postgres_url: str) -> None:
    async with connected(postgres_url) as conn:
        assert await value(conn, "SELECT %s", Jsonb({"a": [1, None]})) == {"a": [1, None]}


async def test_row_factories_of_connection_and_cursor(postgres_url: str) -> None:
    async with await TrioConnection[DictRow].connect(postgres_url, row_factory=dict_row) as conn:
        assert await (await conn.execute("SELECT 1 AS x")).fetchall() == [{"x": 1}]
        async with conn.cursor(row_factory=class_row(Point)) as cursor:
            await cursor.execute("SELECT 1 AS x, 2 AS y")
            assert await cursor.fetchone() == Point(1, 2)
        async with conn.cursor("named", row_factory=namedtuple_row) as named:
            await named.execute("SELECT 3 AS x")
            row = await named.fetchone()
            assert row == (3,)
            assert type(row).__name__ == "Row"


@pytest.mark.parametrize(
    ("factory", "sql"),
    [
        (psycopg.AsyncClientCursor, "SELECT %s + 1"),
        (psycopg.AsyncRawCursor, "SELECT $1::int + 1"),
        (psycopg.AsyncCursor, "SELECT %s::int + 1"),
    ],
)
async def test_cursor_factories(postgres_url: str, factory: type[psycopg.AsyncCursor[Any]], sql: str) -> None:
    async with connected(postgres_url, cursor_factory=factory) as conn:
        assert type(conn.cursor()) is factory
        assert await value(conn, sql, 41) == 42


async def test_the_adapters_of_a_context(postgres_url: str) -> None:
    class Shouting(Loader):
        def load(self, data: Buffer) -> str:
            return bytes(data).decode().upper()

    async with connected(postgres_url) as context:
        context.adapters.register_loader("text", Shouting)
        async with connected(postgres_url, context=context) as conn:
            assert await value(conn, "SELECT 'quiet'::text") == "QUIET"
        async with connected(postgres_url) as other:
            assert await value(other, "SELECT 'quiet'::text") == "quiet"


async def test_statements_are_prepared_after_their_threshold(postgres_url: str) -> None:
    async with connected(postgres_url, prepare_threshold=2) as conn:
        for n in range(4):
            assert await value(conn, "SELECT %s::int8 * 2", n) == 2 * n
        prepared = await value(conn, "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%%* 2'")
        assert prepared == 1


async def test_without_a_threshold_nothing_is_prepared(postgres_url: str) -> None:
    async with connected(postgres_url, prepare_threshold=None) as conn:
        for n in range(8):
            assert await value(conn, "SELECT %s::int8 * 2", n) == 2 * n
        assert await value(conn, "SELECT count(*) FROM pg_prepared_statements") == 0


async def test_execute_many_with_and_without_results(postgres_url: str) -> None:
    async with connected(postgres_url) as conn, conn.cursor() as cursor:
        await cursor.execute("CREATE TEMP TABLE t (n int)")
        await cursor.executemany("INSERT INTO t VALUES (%s)", [(n,) for n in range(500)])
        assert cursor.rowcount == 500
        await cursor.executemany("SELECT n FROM t WHERE n = %s", [(3,), (4,)], returning=True)
        assert await cursor.fetchone() == (3,)
        assert cursor.nextset()
        assert await cursor.fetchone() == (4,)


async def test_a_server_side_cursor_fetches_scrolls_and_is_closed_in_the_server(postgres_url: str) -> None:
    async with connected(postgres_url) as conn:
        async with conn.cursor("numbers", scrollable=True) as cursor:
            cursor.itersize = 10
            await cursor.execute("SELECT generate_series(1, 100)")
            assert await cursor.fetchmany(3) == [(1,), (2,), (3,)]
            await cursor.scroll(0, mode="absolute")
            assert [n async for (n,) in cursor] == list(range(1, 101))
            assert await value(conn, "SELECT count(*) FROM pg_cursors") == 1
        assert await value(conn, "SELECT count(*) FROM pg_cursors") == 0


async def test_a_stream_that_is_left_early_leaves_the_connection_usable(postgres_url: str) -> None:
    async with connected(postgres_url, autocommit=True) as conn:
        async with streamed(conn, "SELECT generate_series(1, 1000000)") as rows:
            async for (n,) in rows:
                if n == 5:
                    break
        assert await value(conn, "SELECT 7") == 7


async def test_copy_in_and_out(postgres_url: str) -> None:
    async with connected(postgres_url) as conn, conn.cursor() as cursor:
        await cursor.execute("CREATE TEMP TABLE t (n int, s text)")
        async with cursor.copy("COPY t FROM STDIN") as copy:
            for n in range(1000):
                await copy.write_row((n, f"row {n}"))
        assert cursor.rowcount == 1000
        async with cursor.copy("COPY t TO STDOUT (FORMAT binary)") as copy:
            copy.set_types(["int4", "text"])
            assert [row async for row in copy.rows()] == [(n, f"row {n}") for n in range(1000)]


async def test_an_error_in_the_body_of_a_copy_ends_it(postgres_url: str) -> None:
    async with connected(postgres_url, autocommit=True) as conn:
        await conn.execute("CREATE TEMP TABLE t (n int)")
        with pytest.raises(ZeroDivisionError):
            async with conn.cursor().copy("COPY t FROM STDIN") as copy:
                await copy.write("1\n")
                _ = 1 / 0
        with pytest.raises(ZeroDivisionError):
            async with conn.cursor().copy("COPY (SELECT generate_series(1, 1000000)) TO STDOUT") as copy:
                await copy.read()
                _ = 1 / 0
        assert await value(conn, "SELECT count(*) FROM t") == 0


async def test_a_pipeline_and_an_error_in_it(postgres_url: str) -> None:
    async with connected(postgres_url, autocommit=True) as conn:
        async with conn.pipeline() as pipeline:
            first = await conn.execute("SELECT 1")
            second = await conn.execute("SELECT 2")
            assert (await second.fetchone(), await first.fetchone()) == ((2,), (1,))
            await conn.execute("SELECT 1 / 0")
            with pytest.raises(psycopg.errors.DivisionByZero):
                await pipeline.sync()
            assert await (await conn.execute("SELECT 3")).fetchone() == (3,)
        assert await value(conn, "SELECT 4") == 4


async def test_transactions_nest_and_roll_back(postgres_url: str) -> None:
    async with connected(postgres_url, autocommit=True) as conn:
        await conn.execute("CREATE TEMP TABLE t (n int)")
        with pytest.raises(ZeroDivisionError):
            async with conn.transaction():
                await conn.execute("INSERT INTO t VALUES (1)")
                raise ZeroDivisionError
        async with conn.transaction():
            await conn.execute("INSERT INTO t VALUES (2)")
            async with conn.transaction(force_rollback=True):
                await conn.execute("INSERT INTO t VALUES (3)")
        async with conn.pipeline(), conn.transaction():
            await conn.execute("INSERT INTO t VALUES (4)")
        assert await value(conn, "SELECT array_agg(n ORDER BY n) FROM t") == [2, 4]


async def test_leaving_the_connection_commits_and_an_error_rolls_back(postgres_url: str) -> None:
    async with connected(postgres_url, autocommit=True) as other:
        await other.execute("DROP TABLE IF EXISTS left_behind; CREATE TABLE left_behind (n int)")
        async with await TrioConnection.connect(postgres_url) as conn:
            await conn.execute("INSERT INTO left_behind VALUES (1)")
        with pytest.raises(ZeroDivisionError):
            async with await TrioConnection.connect(postgres_url) as conn:
                await conn.execute("INSERT INTO left_behind VALUES (2)")
                raise ZeroDivisionError
        assert await value(other, "SELECT array_agg(n) FROM left_behind") == [1]
        await other.execute("DROP TABLE left_behind")


async def test_a_big_parameter_and_a_big_result(postgres_url: str) -> None:
    # More than the buffers of the socket hold: both sides have to wait for each other.
    big = "x" * 30_000_000
    async with connected(postgres_url) as conn:
        assert await value(conn, "SELECT %s::text", big) == big


async def test_a_pipeline_sends_and_receives_more_than_fits_in_the_buffers(postgres_url: str) -> None:
    # Neither fits. While the server sleeps there is nothing to read and no room to write; then it sends, and reads on
    # only when we have read: whoever went on waiting for room alone would wait forever.
    async with connected(postgres_url) as conn:
        with trio.fail_after(60):
            async with conn.pipeline():
                sent = await conn.execute("SELECT length(repeat('y', 10)), repeat('x', 20000000) FROM pg_sleep(0.1)")
                received = await conn.execute("SELECT length(%s)", ("x" * 20_000_000,))
            assert await sent.fetchone() == (10, "x" * 20_000_000)
            assert await received.fetchone() == (20_000_000,)


async def test_a_system_without_poll(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(select, "poll")
    async with connected(postgres_url) as conn:
        assert await value(conn, "SELECT length(%s)", "x" * 10_000_000) == 10_000_000
        async with conn.pipeline():
            await conn.execute("SELECT 1")


async def test_notifications_wake_their_listener(postgres_url: str) -> None:
    async with connected(postgres_url, autocommit=True) as conn, connected(postgres_url, autocommit=True) as other:
        await conn.execute("LISTEN news")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(value, other, "SELECT pg_notify('news', n::text) FROM generate_series(1, 3) AS n")
            heard = [note async for note in conn.notifies(timeout=10, stop_after=3)]
        assert [(note.channel, note.payload) for note in heard] == [("news", "1"), ("news", "2"), ("news", "3")]
        assert heard[0].pid == other.pgconn.backend_pid


async def test_notifications_that_came_with_other_answers_are_kept(postgres_url: str) -> None:
    async with connected(postgres_url, autocommit=True) as conn:
        await conn.execute("LISTEN news")
        await conn.execute("NOTIFY news, 'a'")
        await conn.execute("NOTIFY news, 'b'")
        async with aclosing(conn.notifies(timeout=0)) as notes:
            assert (await anext(notes)).payload == "a"
        assert [note.payload async for note in conn.notifies(timeout=0)] == ["b"]
        assert [note async for note in conn.notifies(timeout=0)] == []


async def test_a_handler_hears_notifications_that_come_with_other_answers(postgres_url: str) -> None:
    heard: list[str] = []
    async with connected(postgres_url, autocommit=True) as conn:
        conn.add_notify_handler(lambda note: heard.append(note.payload))
        await conn.execute("LISTEN news")
        await conn.execute("NOTIFY news, 'a'")
        await conn.execute("SELECT 1")
    assert heard == ["a"]


async def test_notifies_ends_in_time(postgres_url: str) -> None:
    async with connected(postgres_url, autocommit=True) as conn:
        with trio.fail_after(5):
            assert [note async for note in conn.notifies(timeout=0.05)] == []
        assert await value(conn, "SELECT 1") == 1


async def test_settings_of_the_session_and_two_phase_commit_names(postgres_url: str) -> None:
    async with connected(postgres_url) as conn:
        await conn.set_autocommit(True)
        await conn.set_read_only(True)
        await conn.set_isolation_level(psycopg.IsolationLevel.SERIALIZABLE)
        await conn.set_deferrable(True)
        async with conn.transaction():
            assert await value(conn, "SELECT current_setting('transaction_isolation')") == "serializable"
            assert await value(conn, "SELECT current_setting('transaction_read_only')") == "on"


async def test_errors_are_psycopgs_and_leave_the_connection_usable(postgres_url: str) -> None:
    async with connected(postgres_url, autocommit=True) as conn:
        with pytest.raises(psycopg.errors.UndefinedTable):
            await conn.execute("SELECT * FROM nowhere")
        assert await value(conn, "SELECT 1") == 1


async def use_everything(conn: Conn) -> None:
    async with conn.transaction():
        await conn.execute("CREATE TEMP TABLE t (n int) ON COMMIT DROP")
        async with conn.cursor() as cursor:
            await cursor.executemany("INSERT INTO t VALUES (%s)", [(n,) for n in range(100)])
            async with cursor.copy("COPY t FROM STDIN") as copy:
                await copy.write("1\n")
            async with cursor.copy("COPY t TO STDOUT") as copy:
                assert [row async for row in copy.rows()]
            async for _ in cursor.stream("SELECT n FROM t"):
                pass
        async with conn.cursor("named") as named:
            await named.execute("SELECT n FROM t")
            assert len(await named.fetchall()) == 101
    async with conn.pipeline():
        await conn.execute("SELECT 1")
    with trio.move_on_after(0.05):
        await conn.execute("SELECT pg_sleep(10)")
    assert [note async for note in conn.notifies(timeout=0.01)] == []
    await conn.cancel_safe()


async def test_no_statement_uses_asyncio_or_a_thread(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Callable[..., object]:
        def refused(*args: object, **kwargs: object) -> object:
            raise AssertionError(f"{name} was used")

        return refused

    async with connected(postgres_url, autocommit=True) as conn:
        threads = threading.active_count()
        monkeypatch.setattr(threading.Thread, "start", refuse("a thread"))
        monkeypatch.setattr(trio.to_thread, "run_sync", refuse("trio.to_thread"))
        for name in ("new_event_loop", "get_running_loop", "get_event_loop"):
            monkeypatch.setattr(asyncio, name, refuse(name))
            monkeypatch.setattr(asyncio.events, name, refuse(name))
            if hasattr(waiting, name):
                monkeypatch.setattr(waiting, name, refuse(name))
        await use_everything(conn)
        assert threading.active_count() <= threads


async def test_tasks_that_share_a_connection_take_turns(postgres_url: str) -> None:
    answers: dict[int, int] = {}

    async def ask(conn: Conn, n: int) -> None:
        answers[n] = await value(conn, "SELECT %s::int FROM pg_sleep(0.002)", n)

    async with connected(postgres_url) as conn, trio.open_nursery() as nursery:
        for n in range(20):
            nursery.start_soon(ask, conn, n)
    assert answers == {n: n for n in range(20)}


def test_two_runs_in_one_process(postgres_url: str) -> None:
    async def run() -> Conn:
        conn = await TrioConnection.connect(postgres_url, autocommit=True)
        assert await value(conn, "SELECT 1") == 1
        return conn

    async def use(conn: Conn) -> None:
        assert await value(conn, "SELECT 2") == 2
        await conn.close()

    first = trio.run(run)
    second = trio.run(run)
    for conn in (first, second):
        trio.run(use, conn)
