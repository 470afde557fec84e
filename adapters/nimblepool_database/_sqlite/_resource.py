"""One SQLite connection, in its thread."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, final

import trio

from nimblepool_database._resource import DatabaseResource
from nimblepool_database._thread import ConnectionThread

from . import _statements
from ._busy import until_free
from ._errors import SQLiteCommitUnknown, SQLiteTransactionLost, is_busy, is_fatal
from ._rows import SQLiteRows

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

    from nimblepool_database._resource import Isolation, Parameters, Row

    from ._file import SQLiteFile

T = TypeVar("T")

GIVING_UP = 5.0
"""Seconds that a cancelled opening waits for its thread to close what it opened."""

logger = logging.getLogger("nimblepool.database")


@final
class SQLiteResource(DatabaseResource):
    """One connection to a SQLite database; a `DatabaseResource`, made by `SQLiteWorker` alone.

    A statement that finds the database locked waits for it, for at most ``busy_timeout``, and can be cancelled.
    """

    database = "SQLite"

    def __init__(self, file: SQLiteFile) -> None:
        self._path = file.path
        self._options = file.options
        self._writers = file.writers
        self._opening = file.opening
        self._thread = ConnectionThread(f"sqlite {file.path}")
        self._connection: sqlite3.Connection | None = None
        self._journal_mode = ""
        # Between begin and commit or rollback. SQLite may end the transaction before that: then statements must not
        # run, for each would commit by itself.
        self._in_block = False
        # A savepoint could not be undone: what is left of the transaction must not be committed.
        self._spoilt = False
        self._readonly = False
        self._streams: set[SQLiteRows] = set()
        self._interrupted = False
        self._broken = False
        self._closing = False

    @classmethod
    async def open(cls, file: SQLiteFile) -> SQLiteResource:
        """Open a connection and set it up.

        Cancelling waits up to 5 seconds for the thread to close what it opened; a file system that hangs
        longer keeps the thread, which ends by itself when it can.

        Raises:
            sqlite3.Error: the file cannot be opened, or is not a database.
        """
        resource = cls(file)
        try:
            await resource._connect()
        except BaseException as error:
            with trio.move_on_after(GIVING_UP, shield=True):
                await resource.close()
            if isinstance(error, sqlite3.Error):
                error.add_note(f"the database is {file.path}")
            raise
        return resource

    @property
    def raw(self) -> sqlite3.Connection:
        """The driver's connection, usable only inside `call`.

        Raises:
            sqlite3.ProgrammingError: it has been closed.
        """
        if self._connection is None or self._closing:
            raise sqlite3.ProgrammingError("Cannot operate on a closed database.")
        return self._connection

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open on the connection."""
        return self.raw.in_transaction

    @property
    def in_use(self) -> bool:
        """Whether a client left something open: a transaction, or a stream."""
        return self.in_transaction or bool(self._streams)

    @property
    def healthy(self) -> bool:
        """Whether the connection can be lent on: open, without a fatal error behind it, and its thread at rest."""
        return not self._broken and not self._thread.busy and self._is_open()

    async def execute(self, sql: str, params: Parameters = ()) -> int:
        """Run one statement; return how many rows it changed, 0 if it is not of the kind that changes rows."""
        return await self._run(partial(_statements.execute, sql=sql, params=params))

    async def execute_many(self, sql: str, rows: Iterable[Parameters]) -> int:
        """Run one statement for each of ``rows``, all or none; return how many rows they changed."""
        work = partial(_statements.execute_many, sql=sql, rows=list(rows), stopping=self._thread.stopping)
        return await self._run(work)

    async def fetch_all(self, sql: str, params: Parameters = ()) -> list[Row]:
        """Run one statement; return its rows."""
        return await self._run(partial(_statements.fetch_all, sql=sql, params=params))

    async def fetch_one(self, sql: str, params: Parameters = ()) -> Row | None:
        """Run one statement; return its first row, or ``None``."""
        return await self._run(partial(_statements.fetch_one, sql=sql, params=params))

    async def fetch_value(self, sql: str, params: Parameters = ()) -> Any:  # noqa: ANN401 - whatever the column holds
        """Run one statement; return the first column of its first row, or ``None``."""
        return await self._run(partial(_statements.fetch_value, sql=sql, params=params))

    @asynccontextmanager
    async def stream(self, sql: str, params: Parameters = (), *, batch: int) -> AsyncGenerator[SQLiteRows, None]:
        """Run one statement; let its rows be read in the block.

        Cancelling another statement of the connection, in another task, ends the stream: SQLite interrupts both.
        """
        rows = SQLiteRows(self._attempt, batch)
        self._streams.add(rows)
        try:
            await self._run(partial(rows.open, sql=sql, params=params))
            yield rows
            if rows.is_open:
                await self._attempt(partial(rows.finish, sql=sql))
        finally:
            await self._close_streams(rows)

    async def call(self, fn: Callable[..., T], *args: Any) -> T:  # noqa: ANN401 - whatever fn takes
        """Run ``fn(raw, *args)`` in the connection's thread; a locked database is not waited for."""
        return await self._attempt(lambda connection: fn(connection, *args))

    def restore_row_factory(self) -> None:
        """Undo what a client set on the raw connection."""
        self.raw.row_factory = self._options.row_factory

    async def begin(self, isolation: Isolation | None = None, *, readonly: bool = False) -> None:  # noqa: ARG002
        """Queue for the right to write, then ``BEGIN IMMEDIATE``; if ``readonly``, a plain ``BEGIN`` that cannot write.

        Every transaction of SQLite is serializable, which serves any ``isolation``.

        Raises:
            SQLiteBusy: another task of the pool kept the right for longer than ``busy_timeout``.
            sqlite3.OperationalError: somebody outside kept the lock that long, or a transaction is open already.
        """
        if self.in_transaction:
            raise sqlite3.OperationalError("cannot start a transaction within a transaction")
        if not readonly:
            await self._writers.enter(self, self._options.busy_timeout)
        self._readonly = readonly
        begin = _statements.begin_readonly if readonly else _statements.begin
        try:
            await until_free(partial(self._attempt, begin), self._options.busy_timeout)
            self._in_block = True
        except BaseException:
            # A cancelled BEGIN may have worked.
            await self.rollback()
            raise

    async def commit(self) -> None:
        """``COMMIT``; after an error the transaction is to be rolled back.

        Raises:
            SQLiteTransactionLost: there is no transaction any more.
            SQLiteCommitUnknown: ``commit_timeout`` ran out.
            sqlite3.IntegrityError: a deferred constraint is violated.
        """
        # Only with a rollback journal can readers hold a COMMIT up; nothing is decided then, and it may be cancelled.
        await until_free(self._commit, self._options.busy_timeout)
        self._leave_block()

    async def rollback(self) -> None:
        """``ROLLBACK`` if a transaction is open; a connection that cannot becomes unhealthy, without an error."""
        try:
            with trio.move_on_after(self._options.commit_timeout, shield=True):
                await self.reset()
        except sqlite3.Error:
            self._broken = True
            logger.warning("ROLLBACK failed on %s: the connection will be removed", self._path, exc_info=True)

    async def savepoint(self, name: str) -> None:
        """``SAVEPOINT``; shielded.

        Raises:
            SQLiteTransactionLost: there is no transaction any more, or it could not be set within ``commit_timeout``.
        """
        await self._run_shielded(f"SAVEPOINT {name}")

    async def release(self, name: str) -> None:
        """``RELEASE``; shielded.

        Raises:
            SQLiteTransactionLost: there is no transaction any more, or it could not be done within ``commit_timeout``.
        """
        await self._run_shielded(f"RELEASE {name}")

    async def rollback_to(self, name: str) -> None:
        """``ROLLBACK TO``, and release; a transaction of which this cannot be said is lost, without an error."""
        done = False
        try:
            with trio.move_on_after(self._options.commit_timeout, shield=True):
                if not self._thread.abandoned:
                    done = await self._thread.run(partial(self._undo_to, name))
        except sqlite3.Error:
            logger.warning("ROLLBACK TO failed on %s: the transaction is lost", self._path, exc_info=True)
        self._spoilt |= not done

    def _undo_to(self, name: str) -> bool:
        # What interrupted a statement may have ended the transaction, and the savepoints with it.
        connection = self.raw
        if connection.in_transaction:
            _statements.rollback_to(connection, name)
        return True

    async def reset(self) -> None:
        """Close streams; ``ROLLBACK`` if a transaction is open. Cancelled, it goes on, and the connection is unhealthy.

        Raises:
            sqlite3.Error: the connection is closed or broken.
        """
        try:
            # A call that was given up on is in the way. The connection will be closed, and that rolls back as well.
            if not self._thread.abandoned and self._is_open():
                await self._thread.run(partial(self._clean, self.raw))
        finally:
            self._leave_block()

    async def close(self) -> None:
        """Close the connection and end its thread; a statement that still runs is interrupted. To be called once.

        Cancelling only ends the waiting: the thread closes the connection as soon as it can, and ends.
        """
        self._closing = True
        self._leave_block()
        await self._thread.finish(self._disconnect, self._interrupt)

    async def _connect(self) -> None:
        await self._thread.run(self._open_file)
        set_up = partial(self._attempt, partial(_statements.set_up, options=self._options))
        async with self._opening:
            self._journal_mode = await until_free(set_up, self._options.busy_timeout)

    def _open_file(self) -> None:
        # Kept from inside the thread: a cancelled opening still finds what to close.
        self._connection = _statements.connect(self._path)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _is_open(self) -> bool:
        try:
            self.raw.in_transaction  # noqa: B018 - raises once the client has closed the connection behind our back
        except sqlite3.ProgrammingError:
            return False
        return True

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a statement; if the database is locked, once more in the queue of the writers."""
        try:
            return await self._attempt(work)
        except sqlite3.OperationalError as error:
            if not (is_busy(error) and self._waiting_is_safe()):
                raise
        async with self._writers.turn(self, self._options.busy_timeout):
            return await until_free(partial(self._attempt, work), self._options.busy_timeout)

    def _waiting_is_safe(self) -> bool:
        # With a rollback journal, a transaction that waits for a lock and has one that others wait for is a deadlock.
        return self._journal_mode == "wal" or not self.in_transaction

    async def _attempt(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._thread.run_interruptibly(partial(self._guarded, self.raw, work), self._interrupt)
        except trio.Cancelled:
            # An interrupt lasts until no statement is half-way: an open stream would keep it alive for the next one.
            if self._interrupted:
                self._interrupted = False
                await self._close_streams(*self._streams)
            raise

    async def _run_shielded(self, sql: str) -> None:
        with trio.move_on_after(self._options.commit_timeout, shield=True):
            await self._thread.run(partial(self._guarded, self.raw, partial(_statements.execute, sql=sql)))
            return
        raise SQLiteTransactionLost(f"{sql} has not come back for {self._options.commit_timeout:g} s (commit_timeout)")

    async def _commit(self) -> None:
        work = _statements.commit_readonly if self._readonly else _statements.commit
        with trio.move_on_after(self._options.commit_timeout, shield=True):
            await self._thread.run(partial(self._guarded, self.raw, work))
            return
        raise SQLiteCommitUnknown(
            f"COMMIT has not come back for {self._options.commit_timeout:g} s (commit_timeout): it may or may not have "
            "happened, and its connection is being removed"
        )

    async def _close_streams(self, *streams: SQLiteRows) -> None:
        """Close the cursors; a connection on which that cannot be done is busy, and will be removed."""
        if any(rows.is_open for rows in streams) and not self._thread.abandoned:
            with trio.move_on_after(self._options.commit_timeout, shield=True):
                await self._thread.run(partial(_close_all, streams))
        self._streams.difference_update(streams)

    def _clean(self, connection: sqlite3.Connection) -> None:
        _close_all(self._streams)
        self._streams.clear()
        _statements.rollback(connection)
        if self._readonly:
            _statements.allow_writing(connection)

    def _guarded(self, connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._in_block and (self._spoilt or not connection.in_transaction):
            raise SQLiteTransactionLost(
                "the transaction is gone: an interrupted or failed statement rolled it back, or a statement ended it; "
                "leave the block and run it again"
            )
        try:
            return work(connection)
        except sqlite3.Error as error:
            self._broken |= is_fatal(error)
            raise

    def _interrupt(self) -> None:
        self._interrupted = True
        # The running function may have closed the connection, or not opened it yet.
        if self._connection is not None:
            with suppress(sqlite3.ProgrammingError):
                self._connection.interrupt()

    def _leave_block(self) -> None:
        self._in_block = self._spoilt = self._readonly = False
        self._writers.leave(self)


def _close_all(streams: Iterable[SQLiteRows]) -> None:
    for rows in streams:
        rows.close()
