"""One PostgreSQL connection of a pool."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Final, final

import psycopg
import trio
from psycopg import pq
from psycopg.rows import tuple_row

from nimblepool import Verdict
from nimblepool_database._resource import DatabaseResource, unsupported

from ._commands import rows_changed
from ._errors import verdict_on
from ._server_rows import ServerRows
from ._session import IDLE, Session
from ._transaction import OPEN, Transaction

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable

    from psycopg import AsyncCopy, AsyncCursor, AsyncPipeline

    from nimblepool_database._resource import Isolation, Parameters, Row

    from ._options import PostgresOptions
    from ._trio_connection import TrioConnection

ACTIVE: Final = pq.TransactionStatus.ACTIVE
TO_STOP: Final = 1.0
"""Seconds that closing a connection gives the server to break off what it still does there."""


@final
class PostgresResource(DatabaseResource):
    """One connection to a PostgreSQL server, in autocommit mode; a `DatabaseResource`, made by `PostgresWorker`."""

    database = "PostgreSQL"

    def __init__(self, raw: TrioConnection[Any], options: PostgresOptions) -> None:
        self._raw = raw
        self._row_factory = raw.row_factory
        self._resets_always = options.reset == "discard"
        self._session = Session(raw, options)
        self._transaction = Transaction(self._session)
        self._cursors = count(1)

    @property
    def raw(self) -> TrioConnection[Any]:
        """The driver's connection."""
        return self._raw

    # What the worker asks.

    def lend(self) -> Verdict:
        """Begin a lease, unless the connection has ended."""
        idle = self._session.idle
        idle.begin_use()
        try:
            idle.look()
        except psycopg.OperationalError as error:
            verdict = verdict_on(error)
            return Verdict.REMOVE if verdict is Verdict.OK else verdict
        return Verdict.OK

    def take_back(self) -> Verdict:
        """End a lease; tell what is to become of the connection."""
        session, raw = self._session, self._raw
        session.idle.end_use()
        if session.verdict is not Verdict.OK:
            return session.verdict
        if session.closed or session.pgconn.pipeline_status or raw.lock.locked() or not raw.autocommit:
            return Verdict.REMOVE
        raw.row_factory = self._row_factory
        status = session.status
        if status != IDLE or self._resets_always:
            return Verdict.RESET if status == IDLE or status in OPEN else Verdict.REMOVE
        self._transaction.forget()
        return Verdict.OK

    async def ping(self) -> None:
        """Ask the server for an answer; a cancellation closes the connection."""
        session = self._session
        session.idle.begin_use()
        with session.no_patience():
            await session.command(b"SELECT 1")
        session.idle.end_use()

    async def reset(self) -> None:
        """Roll back what was left open, and do what the option ``reset`` says; a cancellation closes the connection.

        Raises:
            psycopg.Error: it did not work, and the connection is of no use.
        """
        session = self._session
        session.idle.begin_use()
        with session.no_patience():
            await (self._discard() if self._resets_always else session.command(b"ROLLBACK"))
        self._transaction.forget()
        session.idle.end_use()

    async def watch(self) -> None:
        """Raise as soon as the server has closed the connection while nobody used it."""
        await self._session.idle.run()

    async def close(self) -> None:
        """Close the connection; a statement that still runs is broken off in the server."""
        if self._session.status == ACTIVE:
            with suppress(psycopg.Error):
                await self._raw.cancel_safe(timeout=TO_STOP)
        await self._raw.close()

    # Statements.

    async def execute(self, sql: str, params: Parameters = ()) -> int:
        """Run one statement; return how many rows it changed, 0 if it is not of the kind that changes rows."""
        return rows_changed(await self._run(self._raw.cursor(), sql, params))

    async def execute_many(self, sql: str, rows: Iterable[Parameters]) -> int:
        """Run one statement for each of ``rows``, all or none, in few round trips; return how many they changed."""
        work = list(rows)
        if not work:
            return 0
        self._transaction.check()
        async with self._transaction.all_or_none():
            cursor = self._raw.cursor()
            with self._session.judging():
                await cursor.executemany(_query(sql), work)
        return max(cursor.rowcount, 0)

    async def fetch_all(self, sql: str, params: Parameters = ()) -> list[Row]:
        """Run one statement; return its rows."""
        cursor = await self._run(self._raw.cursor(), sql, params)
        try:
            return await cursor.fetchall()
        except psycopg.ProgrammingError:
            if _may_have_rows(cursor):
                raise
            return []

    async def fetch_one(self, sql: str, params: Parameters = ()) -> Row | None:
        """Run one statement; return its first row, or ``None``."""
        return await self._first(self._raw.cursor(), sql, params)

    async def fetch_value(self, sql: str, params: Parameters = ()) -> Any:  # noqa: ANN401 - whatever the column holds
        """Run one statement; return the first column of its first row, or ``None``."""
        row = await self._first(self._raw.cursor(row_factory=tuple_row), sql, params)
        return row[0] if row else None

    @asynccontextmanager
    async def stream(self, sql: str, params: Parameters = (), *, batch: int) -> AsyncGenerator[AsyncIterator[Row]]:
        """Run one SELECT in a server-side cursor, and in a transaction unless there is one; yield its rows."""
        if self._session.pipeline is not None:
            raise unsupported("stream() inside pipeline()", self.database)
        self._transaction.check()
        async with self._transaction.joined(), self._raw.cursor(f"nimblepool_{next(self._cursors)}") as cursor:
            await self._run(cursor, sql, params)

            async def fetch(size: int) -> list[Row]:
                with self._session.judging():
                    return await cursor.fetchmany(size)

            yield ServerRows(fetch, batch)

    async def call(self, fn: Callable[..., Awaitable[Any]], *args: Any) -> Any:  # noqa: ANN401 - whatever fn returns
        """Await ``fn(raw, *args)``."""
        self._transaction.check()
        with self._session.judging():
            return await fn(self._raw, *args)

    @asynccontextmanager
    async def copy(self, sql: str, params: Parameters = ()) -> AsyncGenerator[AsyncCopy]:
        """Run a COPY; yield psycopg's object to read from or write to."""
        self._transaction.check()
        async with AsyncExitStack() as stack:
            copying = self._raw.cursor().copy(_query(sql), params or None)
            with self._session.judging():
                copy = await stack.enter_async_context(copying)
            yield copy

    @asynccontextmanager
    async def pipeline(self) -> AsyncGenerator[AsyncPipeline]:
        """Send the block's statements without waiting for the answers; errors come out at a fetch, or at the end."""
        session = self._session
        outer = session.pipeline
        try:
            with session.judging():
                async with self._raw.pipeline() as pipeline:
                    session.pipeline = pipeline
                    yield pipeline
        except psycopg.Error:
            # Leaving a pipeline that was cancelled can fail, and the cancellation is what counts.
            await trio.lowlevel.checkpoint_if_cancelled()
            raise
        finally:
            session.pipeline = outer

    # Transactions.

    async def begin(self, isolation: Isolation | None = None, *, readonly: bool = False) -> None:
        """Open a transaction.

        Raises:
            ValueError: PostgreSQL has no such isolation level.
            psycopg.errors.ActiveSqlTransaction: one is open already.
        """
        await self._transaction.begin(isolation, readonly=readonly)

    async def commit(self) -> None:
        """``COMMIT``; after an error the transaction is to be rolled back.

        Raises:
            PostgresTransactionLost: there is no transaction any more, or one of its statements failed.
            PostgresCommitUnknown: ``commit_timeout`` ran out, or the connection was lost before the answer came.
            psycopg.Error: the server refuses, and has rolled back: a deferred constraint, a serialization failure.
        """
        await self._transaction.commit()

    async def rollback(self) -> None:
        """``ROLLBACK`` if a transaction is open; a connection that cannot is removed later, without an error."""
        await self._transaction.rollback()

    async def savepoint(self, name: str) -> None:
        """``SAVEPOINT``; shielded.

        Raises:
            PostgresTransactionLost: there is no transaction any more, or it was not set within ``commit_timeout``.
        """
        await self._transaction.savepoint(name)

    async def release(self, name: str) -> None:
        """``RELEASE SAVEPOINT``; shielded.

        Raises:
            PostgresTransactionLost: there is no transaction any more, or it was not released within ``commit_timeout``.
            psycopg.errors.InFailedSqlTransaction: a statement since the savepoint failed.
        """
        await self._transaction.release(name)

    async def rollback_to(self, name: str) -> None:
        """``ROLLBACK TO SAVEPOINT``, and release it; where that cannot be done, the whole transaction is lost."""
        await self._transaction.rollback_to(name)

    async def _run(self, cursor: AsyncCursor[Any], sql: str, params: Parameters) -> AsyncCursor[Any]:
        self._transaction.check()
        try:
            # Without parameters, no percent sign is a placeholder.
            return await cursor.execute(_query(sql), params or None)
        except psycopg.Error as error:
            self._session.judge(error)
            raise

    async def _first(self, cursor: AsyncCursor[Any], sql: str, params: Parameters) -> Any:  # noqa: ANN401 - a row
        await self._run(cursor, sql, params)
        try:
            return await cursor.fetchone()
        except psycopg.ProgrammingError:
            if _may_have_rows(cursor):
                raise
            return None

    async def _discard(self) -> None:
        await self._raw.rollback()
        # Psycopg forgets its prepared statements when it rolls back itself, and only then.
        await self._session.command(b"BEGIN")
        await self._raw.rollback()
        await self._session.command(b"DISCARD ALL")
        await self._session.options.set_up(self._raw)


def _may_have_rows(cursor: AsyncCursor[Any]) -> bool:
    return cursor.description is not None or cursor.statusmessage is None


def _query(sql: str) -> Any:  # noqa: ANN401 - psycopg asks for literals, to keep values out of statements
    return sql
