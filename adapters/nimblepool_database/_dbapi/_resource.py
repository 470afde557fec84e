"""One connection of a PEP 249 driver, in its thread."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from nimblepool import ResourceLost, Verdict
from nimblepool_database._errors import CommitUnknown, TransactionLost
from nimblepool_database._resource import DatabaseResource, unsupported
from nimblepool_database._thread import ConnectionThread

from ._canceller import Canceller
from ._session import Session
from ._statements import first_column
from ._stream import RowStream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable

    from nimblepool_database._resource import Isolation, Parameters, Row

    from ._driver import Driver

T = TypeVar("T")

CLOSING_PATIENCE = 1.0
"""Seconds that a statement under way has to let itself be cancelled before its connection is cut."""

logger = logging.getLogger("nimblepool.database")


class DBAPIResource(DatabaseResource):
    """One connection of a PEP 249 driver; made by `DBAPIWorker` alone.

    A cancelled statement is broken off with the driver's cancel function, and waited for; without one, or if it does
    not help, `trio.Cancelled` comes out after ``cancel_timeout``, the connection is useless from then on, and its
    thread ends when the driver lets go of it.
    """

    def __init__(self, driver: Driver) -> None:
        self.database = driver.name
        self._driver = driver
        self._thread = ConnectionThread(f"dbapi {driver.name}")
        self._canceller = Canceller(driver.cancel, driver.name)
        self._session = Session(driver, self._canceller)

    @classmethod
    async def open(cls, driver: Driver) -> DBAPIResource:
        """Open a connection.

        Cancelling waits up to ``cancel_timeout`` for the thread to close what it opened; a driver that
        hangs longer keeps the thread, which ends by itself when it can.

        Raises:
            Exception: what the driver raises.
        """
        resource = cls(driver)
        try:
            await resource._thread.run(resource._session.connect)
        except BaseException:
            with trio.move_on_after(driver.cancel_timeout, shield=True):
                await resource.close()
            raise
        return resource

    @property
    def raw(self) -> Any:  # noqa: ANN401 - each driver has a type of its own
        """The driver's connection, usable only inside `call`.

        Raises:
            nimblepool.ResourceLost: it is closed, or still busy with something that could not be cancelled.
        """
        self._check_usable()
        return self._session.connection

    @property
    def verdict(self) -> Verdict:
        """What should become of the connection now that its lease has ended."""
        if self._thread.busy or self._thread.abandoned or self._session.connection is None:
            return Verdict.REMOVE
        if self._session.verdict is Verdict.OK and self._session.dirty:
            return Verdict.RESET
        return self._session.verdict

    async def execute(self, sql: str, params: Parameters = ()) -> int:
        """Run one statement; return how many rows it changed, 0 for a statement that changes none."""
        return await self._run(partial(self._session.execute, sql, params))

    async def execute_many(self, sql: str, rows: Iterable[Parameters]) -> int:
        """Run one statement for each of ``rows``, all or none; return how many rows they changed."""
        return await self._run(partial(self._session.execute_many, sql, list(rows), self._thread.stopping))

    async def fetch_all(self, sql: str, params: Parameters = ()) -> list[Row]:
        """Run one statement; return its rows as the driver makes them."""
        return await self._run(partial(self._session.fetch_all, sql, params))

    async def fetch_one(self, sql: str, params: Parameters = ()) -> Row | None:
        """Run one statement; return its first row, or ``None``."""
        return await self._run(partial(self._session.fetch_one, sql, params))

    async def fetch_value(self, sql: str, params: Parameters = ()) -> Any:  # noqa: ANN401 - whatever the column holds
        """Run one statement; return the first column of its first row, or ``None``."""
        return first_column(await self.fetch_one(sql, params))

    async def call(self, fn: Callable[..., T], *args: Any) -> T:  # noqa: ANN401 - whatever fn takes
        """Run ``fn(raw, *args)`` in the connection's thread; outside a transaction it counts by itself."""
        return await self._run(partial(self._session.call, fn, args))

    @asynccontextmanager
    async def stream(
        self, sql: str, params: Parameters = (), *, batch: int
    ) -> AsyncGenerator[AsyncIterator[Row], None]:
        """Run one statement and let its rows be read within the block, ``batch`` at a time."""
        rows = RowStream(self._run, self._session, batch)
        try:
            await self._run(partial(self._session.start_streaming, sql, params, rows.keep))
            yield rows
        except BaseException:
            await self._quietly("closing a stream", partial(self._session.stop_streaming, rows.end(), keep=False))
            raise
        await self._to_the_end(partial(self._session.stop_streaming, rows.end(), keep=True), "closing a stream")

    async def begin(self, isolation: Isolation | None = None, *, readonly: bool = False) -> None:
        """Open a transaction.

        Raises:
            RuntimeError: one is open already.
            Unsupported: the database has none of this kind.
        """
        try:
            await self._run(partial(self._session.begin, isolation, readonly=readonly))
        except RuntimeError:
            raise
        except BaseException:
            # A cancelled BEGIN may have worked.
            await self.rollback()
            raise

    async def commit(self) -> None:
        """Commit it; after an error it is to be rolled back.

        Raises:
            TransactionLost: there is no transaction any more, or a statement of it failed (PostgreSQL).
            CommitUnknown: ``commit_timeout`` ran out, or the connection was lost.
        """
        if self._thread.abandoned:
            raise self._driver.complaint(TransactionLost, "the transaction is gone: its connection is lost")
        with trio.move_on_after(self._driver.commit_timeout, shield=True):
            await self._thread.run(self._session.commit)
            return
        raise self._driver.complaint(
            CommitUnknown,
            f"COMMIT has not come back for {self._driver.commit_timeout:g} s (commit_timeout): it may or may not have "
            "happened, and its connection is being removed",
        )

    async def rollback(self) -> None:
        """``ROLLBACK``, if a transaction may be open; a connection that cannot is removed, without an error."""
        await self._quietly("ROLLBACK", self._session.rollback)

    async def savepoint(self, name: str) -> None:
        """Set a savepoint."""
        self._check_savepoints()
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._to_the_end(partial(self._session.savepoint, name), "SAVEPOINT")

    async def release(self, name: str) -> None:
        """Give it up and keep what was done since."""
        await self._to_the_end(partial(self._session.release, name), "RELEASE SAVEPOINT")

    async def rollback_to(self, name: str) -> None:
        """Undo what was done since, and give it up; where that fails the transaction is lost, and will say so."""
        await self._quietly("ROLLBACK TO SAVEPOINT", partial(self._session.rollback_to, name))

    async def reset(self) -> None:
        """Roll back what a client left open; see whether a connection with doubtful errors behind it still answers.

        Raises:
            Exception: what the driver raises: the connection is lost.
        """
        await self._thread.run(self._session.reset)

    async def ping(self) -> None:
        """See whether the database answers."""
        await self._run(self._session.ping)

    async def close(self) -> None:
        """Close the connection and end its thread; a statement that still runs is broken off. To be called once.

        Cancelling only ends the waiting: the thread closes the connection as soon as it can, and ends.
        """
        patience = trio.current_time() + CLOSING_PATIENCE

        def break_off() -> None:
            if self._thread.abandoned or trio.current_time() > patience:
                self._sever()
            self._canceller.ask()

        await self._thread.finish(self._session.close, break_off)

    async def _run(self, work: Callable[[], T]) -> T:
        """Run ``work`` in the thread; cancelled, break it off."""
        self._check_usable()
        return await self._thread.run_interruptibly(work, self._canceller.ask, self._driver.cancel_timeout)

    async def _to_the_end(self, work: Callable[[], None], what: str) -> None:
        """Run ``work`` in the thread, shielded, under the deadline of a commit."""
        self._check_usable()
        with trio.move_on_after(self._driver.commit_timeout, shield=True):
            await self._thread.run(work)
            return
        raise self._driver.complaint(
            ResourceLost,
            f"{what} has not come back for {self._driver.commit_timeout:g} s (commit_timeout): "
            "its connection is being removed",
        )

    async def _quietly(self, what: str, work: Callable[[], None]) -> None:
        """Do the same, and raise nothing: whoever undoes something has an error on its way already."""
        if self._thread.abandoned:
            return
        try:
            await self._to_the_end(work, what)
        except Exception as error:
            level = logging.DEBUG if self._session.condemned else logging.WARNING
            logger.log(level, "%s failed on %s: the connection will be removed", what, self.database, exc_info=error)
            self._session.condemn(Verdict.REMOVE)

    def _check_usable(self) -> None:
        if self._thread.abandoned:
            raise self._driver.complaint(
                ResourceLost,
                "the connection is lost: something on it was cancelled, or timed out, and has not come back",
            )
        if self._session.connection is None:
            raise self._driver.complaint(ResourceLost, "the connection is closed")

    def _check_savepoints(self) -> None:
        if not self._driver.savepoints:
            raise unsupported("a transaction inside another one", self.database)

    def _sever(self) -> None:
        if self._driver.sever is not None and self._session.connection is not None:
            try:
                self._driver.sever(self._session.connection)
            except Exception as error:  # noqa: BLE001 - it is closed already, or never was open
                logger.debug("cutting a connection of %s raised %s", self.database, type(error).__name__)
