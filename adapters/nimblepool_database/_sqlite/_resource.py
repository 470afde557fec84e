"""One SQLite connection, in its thread."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, final

import trio

from nimblepool_database._thread import ConnectionThread

from . import _statements
from ._busy import until_free
from ._errors import SQLiteCommitUnknown, SQLiteTransactionLost, is_busy, is_fatal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from nimblepool_database._resource import Parameters, Row

    from ._file import SQLiteFile

T = TypeVar("T")

GIVING_UP = 5.0
"""Seconds that a cancelled opening waits for its thread to close what it opened."""

logger = logging.getLogger("nimblepool.database")


@final
class SQLiteResource:
    """One connection to a SQLite database; a `DatabaseResource`, made by `SQLiteWorker` alone.

    A statement that finds the database locked waits for it, for at most ``busy_timeout``, and can be cancelled.
    """

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
        except BaseException:
            with trio.move_on_after(GIVING_UP, shield=True):
                await resource.close()
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

    async def call(self, fn: Callable[..., T], *args: Any) -> T:  # noqa: ANN401 - whatever fn takes
        """Run ``fn(raw, *args)`` in the connection's thread; a locked database is not waited for."""
        return await self._attempt(lambda connection: fn(connection, *args))

    async def begin(self) -> None:
        """Queue for the right to write, then ``BEGIN IMMEDIATE``.

        Raises:
            SQLiteBusy: another task of the pool kept the right for longer than ``busy_timeout``.
            sqlite3.OperationalError: somebody outside kept the lock that long, or a transaction is open already.
        """
        if self.in_transaction:
            raise sqlite3.OperationalError("cannot start a transaction within a transaction")
        await self._writers.enter(self, self._options.busy_timeout)
        try:
            await until_free(partial(self._attempt, _statements.begin), self._options.busy_timeout)
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

    async def reset(self) -> None:
        """``ROLLBACK`` if a transaction is open. A cancelled one goes on by itself: the connection is unhealthy then.

        Raises:
            sqlite3.Error: the connection is closed or broken.
        """
        try:
            # A call that was given up on is in the way. The connection will be closed, and that rolls back as well.
            if not self._thread.busy and self._is_open():
                await self._thread.run(partial(_statements.rollback, self.raw))
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
        return await self._thread.run_interruptibly(partial(self._guarded, self.raw, work), self._interrupt)

    async def _commit(self) -> None:
        with trio.move_on_after(self._options.commit_timeout, shield=True):
            await self._thread.run(partial(self._guarded, self.raw, _statements.commit))
            return
        raise SQLiteCommitUnknown(
            f"COMMIT has not come back for {self._options.commit_timeout:g} s (commit_timeout): it may or may not have "
            "happened, and its connection is being removed"
        )

    def _guarded(self, connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._in_block and not connection.in_transaction:
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
        # The running function may have closed the connection, or not opened it yet.
        if self._connection is not None:
            with suppress(sqlite3.ProgrammingError):
                self._connection.interrupt()

    def _leave_block(self) -> None:
        self._in_block = False
        self._writers.leave(self)
