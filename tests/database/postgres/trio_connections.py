"""What the tests of `TrioConnection` share."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, cast

import trio
from psycopg import pq

from nimblepool_database._postgres._trio_connection import TrioConnection

Conn = TrioConnection[tuple[Any, ...]]
Act = Callable[[Conn], Awaitable[object]]

QUIET: Final = {pq.TransactionStatus.IDLE, pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR}
PATIENCE: Final = 10.0
"""Seconds that nothing here should need."""

marker = count(1).__next__


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncGenerator[Conn]:  # noqa: ANN401 - what `connect` takes
    """Connect, and close at the end whatever happened."""
    conn = await TrioConnection.connect(url, **options)
    try:
        yield conn
    finally:
        await conn.close()


async def value(conn: Conn, sql: str, *params: object) -> Any:  # noqa: ANN401 - what the statement yields
    """Return the first column of the first row."""
    row = await (await conn.execute(sql.encode(), params or None)).fetchone()
    assert row is not None
    return row[0]


@asynccontextmanager
async def streamed(conn: Conn, sql: str, size: int = 1) -> AsyncGenerator[AsyncIterator[tuple[Any, ...]]]:
    """`cursor.stream`, closed with the block."""
    # Psycopg's annotation hides that it is a generator.
    rows = cast("AsyncGenerator[tuple[Any, ...]]", conn.cursor().stream(sql.encode(), size=size))
    async with aclosing(rows):
        yield rows


@dataclass
class Pair:
    """A connection under test, and another one that looks at the server."""

    conn: Conn
    observer: Conn

    async def activity(self) -> str | None:
        """What the server says that the connection does: ``active``, ``idle``, ...; ``None`` if it is gone."""
        pid = self.conn.pgconn.backend_pid
        cursor = await self.observer.execute("SELECT state FROM pg_stat_activity WHERE pid = %s", (pid,))
        row = await cursor.fetchone()
        return None if row is None else row[0]

    async def check(self) -> None:
        """The connection is in step: quiet on both sides, its lock free, and it answers what it is asked."""
        conn = self.conn
        assert not conn.closed
        assert conn.pgconn.transaction_status in QUIET
        assert conn.pgconn.pipeline_status == pq.PipelineStatus.OFF
        assert not conn.lock.locked()
        assert await self.activity() in {"idle", "idle in transaction", "idle in transaction (aborted)"}
        await conn.rollback()
        mine = marker()
        assert await value(conn, "SELECT %s::int", mine) == mine
        await conn.rollback()
        assert await self.activity() == "idle"


@asynccontextmanager
async def pair(url: str, **options: Any) -> AsyncGenerator[Pair]:  # noqa: ANN401 - what `connect` takes
    async with connected(url, **options) as conn, connected(url, autocommit=True) as observer:
        yield Pair(conn, observer)


async def until_free(conn: Conn) -> None:
    """Return when no task holds the connection's lock."""
    with trio.fail_after(PATIENCE):
        while conn.lock.locked():  # noqa: ASYNC110 - nothing tells us
            await trio.sleep(0.002)


async def until_active(observer: Conn, pid: int) -> None:
    """Return when the server is at work for the connection with this pid."""
    active = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active'"
    with trio.fail_after(PATIENCE):
        while not await value(observer, active, pid):  # noqa: ASYNC110 - nothing tells us
            await trio.sleep(0.002)
