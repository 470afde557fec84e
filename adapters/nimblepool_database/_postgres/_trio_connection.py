"""psycopg 3 natively on trio.

psycopg keeps its protocol (generators, see `_waiting`) apart from the waiting for the socket; `AsyncConnection` adds
asyncio's waiting, and cursors, COPY, pipelines and rows know the connection alone. So what is replaced here is what
waits: `connect`, `wait`, `cancel_safe`, `notifies` and the lock. All else is psycopg's own.

The hard part is cancellation. asyncio tells a task once, and its clean-up can then wait as usual; trio goes on raising
`Cancelled` from every wait. So `wait` itself brings the connection into step again:

- Cancelled before its generator has begun: nothing was sent, nothing is to be done. Unless the server is at work for an
  earlier one (COPY, `stream`, a pipeline): then psycopg's own clean-up has come here, and cannot go on.
- Cancelled while it waits: the generator is given up, for it might start the next statement. The server is asked to
  stop, and what it still answers is dropped. That is shielded, and has a deadline: a server that does not answer loses
  the connection.
- COMMIT, ROLLBACK and their like go on, until the same deadline (`_settling`).

Names private to psycopg may move in any release. Used here: `_adapters`, `_autocommit`, `_notifies_backlog`,
`_pipeline`, `_prepared` (its `_names`, `_to_flush`, `clear`, `maintain_gen`), `_try_cancel`.
"""

from __future__ import annotations

import logging
import math
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast

import trio
from psycopg import AsyncConnection, AsyncServerCursor, AsyncTransaction, Notify, pq
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import CancellationTimeout, Error, OperationalError
from psycopg.rows import Row, tuple_row
from psycopg.waiting import Wait
from trio.lowlevel import checkpoint_if_cancelled

from ._lock import ConnectionLock
from ._opening import check_libpq, open_first
from ._settling import Settled, is_settling, settling
from ._stopping import drain, is_at_work, request_cancel
from ._waiting import SocketLost, Turns, drive, drive_opening

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import AsyncGenerator, Generator
    from types import TracebackType

    from psycopg import AsyncCursor, AsyncPipeline
    from psycopg.abc import AdaptContext, ConnParam, PQGen
    from psycopg.pq.abc import PGconn
    from psycopg.rows import AsyncRowFactory

T = TypeVar("T")

FIRST_REMINDER = 0.1
"""Seconds until a request to cancel is repeated for the first time; every further wait is twice as long."""

logger = logging.getLogger("nimblepool.database")


class TrioConnection(AsyncConnection[Row]):
    """A psycopg connection for trio, used exactly as `psycopg.AsyncConnection` is; needs libpq 17 or newer.

    ``async with await TrioConnection.connect("dbname=app") as conn: ...``

    Every statement can be cancelled: the server is asked to break it off, and then the connection is idle, or in the
    transaction it was in (perhaps a failed one), and can be used at once. If the server does not comply within
    `cancel_timeout` the connection is closed. A statement that was cancelled may have been carried out nevertheless.

    `commit`, `rollback`, the ends of `transaction` blocks and the closing of server-side cursors are not broken off: a
    cancellation leaves them `cancel_timeout` to end.

    Tasks that share a connection take turns. `psycopg.AsyncQueuedLibpqWriter` needs asyncio and does not work here.

    Attributes:
        cancel_timeout: how long, in seconds, a cancelled task waits for the server before it closes the connection.
    """

    cancel_timeout: float = 5.0

    def __init__(
        self,
        pgconn: PGconn,
        row_factory: AsyncRowFactory[Row] = cast("AsyncRowFactory[Row]", tuple_row),  # noqa: B008 - psycopg does so
    ) -> None:
        super().__init__(pgconn, row_factory)
        self.lock: ConnectionLock = ConnectionLock()  # type: ignore[assignment]
        self.server_cursor_factory = cast("type[AsyncServerCursor[Row]]", TrioServerCursor)
        self._turns = Turns()

    @classmethod
    async def connect(
        cls,
        conninfo: str = "",
        *,
        autocommit: bool = False,
        prepare_threshold: int | None = 5,
        context: AdaptContext | None = None,
        row_factory: AsyncRowFactory[Row] | None = None,
        cursor_factory: type[AsyncCursor[Row]] | None = None,
        **kwargs: ConnParam,
    ) -> Self:
        """Connect to a server, as `psycopg.AsyncConnection.connect` does; several hosts are tried in turn.

        A cancellation leaves no socket open. Names of hosts are looked up in a thread.

        Raises:
            psycopg.NotSupportedError: libpq is older than 17.
            psycopg.OperationalError: no server could be reached, each within ``connect_timeout`` seconds.
            psycopg.ProgrammingError: the connection string is malformed.
        """
        check_libpq()
        adapters = AdaptersMap(context.adapters) if context else None
        self = cls(await open_first(conninfo_to_dict(conninfo, **kwargs)))
        # No checkpoint from here on: a cancellation would leave the connection to nobody.
        self._autocommit = bool(autocommit)
        self.prepare_threshold = prepare_threshold
        if row_factory:
            self.row_factory = row_factory
        if cursor_factory:
            self.cursor_factory = cursor_factory
        if adapters:
            self._adapters = adapters
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await super().__aexit__(exc_type, exc, traceback)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connection, at once and without a checkpoint; a task that waits on it gets an OperationalError."""
        self._announce_close()
        await super().close()

    async def wait(self, gen: PQGen[T], interval: float = 0.0, timeout: float | None = None) -> T:  # noqa: ARG002 - psycopg's signature
        """Run a generator of psycopg's on this connection; psycopg calls this for everything it does.

        Looks for a cancellation first, always; what one does is said in the class.

        Args:
            gen: the generator; the connection's lock must be held.
            interval: ignored: trio needs no wake-ups to notice a cancellation or Ctrl-C.
            timeout: seconds.

        Raises:
            psycopg.OperationalError: the connection was closed meanwhile; or ``timeout`` has passed.
        """
        if timeout is not None:
            with trio.move_on_after(timeout):
                return await self.wait(gen)
            raise OperationalError(f"no answer within {timeout} s")
        if not is_settling.get():
            await self._look_for_cancellation()
        fd = self.pgconn.socket
        try:
            return await drive(gen, fd, self._turns)
        except SocketLost as exc:
            self._abandon(gen)
            raise OperationalError("the connection was closed while it was waited for") from exc
        except Exception:
            # psycopg's own, from a generator that has ended.
            raise
        except BaseException as exc:
            if is_settling.get() and isinstance(exc, trio.Cancelled):
                return await self._settle(gen, fd)
            await self._break_off(gen)
            raise

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:
        """Ask the server to break off what it does on this connection; any task may call this.

        It is not cancelled itself, so that a cancelled task can use it.

        Args:
            timeout: seconds.

        Raises:
            psycopg.errors.CancellationTimeout: the server has not answered within ``timeout``.
            psycopg.OperationalError: the server cannot be reached.
        """
        if self.closed:
            return
        with trio.move_on_after(timeout, shield=True):
            await drive_opening(request_cancel(self.pgconn.cancel_conn()))
            return
        raise CancellationTimeout("cancellation timeout expired")

    async def forget_prepared(self) -> None:
        """Let every statement be prepared anew; to be called after a ROLLBACK by other means, with its lock still held.

        Types and tables may be gone with the transaction that made them, and prepared statements refer to them.
        """
        self._prepared.clear()
        # Now: after the next statement the server would drop that as well, and psycopg not know.
        await self.wait(self._prepared.maintain_gen(self))

    async def commit(self) -> None:
        """Commit the transaction, if there is one. Once begun, a cancellation leaves it `cancel_timeout` to end."""
        await checkpoint_if_cancelled()
        with settling():
            await super().commit()

    async def rollback(self) -> None:
        """Roll back the transaction, if there is one; even in a cancelled task, within `cancel_timeout`."""
        with settling():
            await super().rollback()

    @asynccontextmanager
    async def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> AsyncGenerator[AsyncTransaction]:
        """Run a block in a transaction, or in a savepoint if there is one; see `psycopg.AsyncConnection.transaction`.

        A cancellation of the block rolls it back. Once the block has ended, its COMMIT is not broken off.
        """
        await checkpoint_if_cancelled()
        transaction = AsyncTransaction(self, savepoint_name, force_rollback)
        if self._pipeline is None:
            async with Settled(transaction):
                yield transaction
        else:
            async with Settled(self.pipeline()), Settled(transaction), self.pipeline():
                yield transaction

    @asynccontextmanager
    async def pipeline(self) -> AsyncGenerator[AsyncPipeline]:
        """Switch to pipeline mode for a block; see `psycopg.AsyncConnection.pipeline`.

        A cancellation breaks off the statements that have no result yet; without a transaction around them, the server
        rolls back those since the last synchronisation.
        """
        try:
            async with super().pipeline() as pipeline:
                yield pipeline
        except BaseException:
            if self._is_between_modes():
                self._abandon()
            raise

    async def notifies(
        self, *, timeout: float | None = None, stop_after: int | None = None
    ) -> AsyncGenerator[Notify, None]:
        """Yield notifications as they arrive; the connection is locked meanwhile. Use it in `contextlib.aclosing`.

        Handlers (`add_notify_handler`) are not called for what is yielded here.

        Args:
            timeout: seconds after which to end; 0 yields what has already arrived; ``None``: never.
            stop_after: end when so many were yielded, or a few more if they arrived together.

        Raises:
            psycopg.OperationalError: the connection is lost.
        """
        deadline = math.inf if timeout is None else trio.current_time() + timeout
        received = 0
        async with self.lock:
            # Other statements put here what they received by the way; what is not consumed stays for the next time.
            arrived = self._notifies_backlog
            assert arrived is not None, "bug: psycopg's own notifies() is running"
            while True:
                self._receive_notifies(arrived)
                while arrived:
                    received += 1
                    yield arrived.popleft()
                if (stop_after is not None and received >= stop_after) or not await self._readable_before(deadline):
                    return

    def _is_between_modes(self) -> bool:
        """Tell whether a pipeline was left by half: by a cancellation, while another task held the lock."""
        if self._pipeline is not None:
            return self._pipeline.level == 0
        return self.pgconn.pipeline_status != pq.PipelineStatus.OFF

    def _receive_notifies(self, arrived: deque[Notify]) -> None:
        self.pgconn.consume_input()
        encoding = self.info.encoding
        while notify := self.pgconn.notifies():
            arrived.append(Notify(notify.relname.decode(encoding), notify.extra.decode(encoding), notify.be_pid))

    async def _readable_before(self, deadline: float) -> bool:
        with trio.CancelScope(deadline=deadline):
            await self.wait(_until_readable())
            return True
        return False

    async def _look_for_cancellation(self) -> None:
        try:
            await checkpoint_if_cancelled()
        except BaseException:
            await self._break_off()
            raise

    async def _settle(self, gen: PQGen[T], fd: int) -> T:
        """Run on a generator that was cancelled, for a while. The cancellation shows at the next checkpoint."""
        try:
            with trio.move_on_after(self.cancel_timeout, shield=True):
                return await drive(gen, fd, self._turns)
        except SocketLost:
            pass
        self._abandon(gen)
        await checkpoint_if_cancelled()
        raise OperationalError(f"the server did not answer within {self.cancel_timeout} s: connection closed")

    async def _break_off(self, gen: PQGen[Any] | None = None) -> None:
        """Give up ``gen``, stop the server's work and drop its answers; close the connection if that does not work."""
        if gen is not None:
            self._give_up(gen)
        if not is_at_work(self.pgconn):
            return
        self._forget_pipeline()
        stopped = False
        try:
            with trio.move_on_after(self.cancel_timeout, shield=True), suppress(Error, SocketLost):
                stopped = await self._stop()
        finally:
            if not stopped:
                logger.warning("%s: the server was lost, or did not stop within %s s", self, self.cancel_timeout)
                self._abandon()

    async def _stop(self) -> Literal[True]:
        patience = FIRST_REMINDER
        while True:
            # A request is lost on a server that has not read the statement yet. It never hits the next statement: that
            # one is not sent before the server has acknowledged the request.
            with suppress(Error):
                await drive_opening(request_cancel(self.pgconn.cancel_conn()))
            with trio.move_on_after(patience):
                await drive(drain(self.pgconn), self.pgconn.socket, self._turns)
                return True
            patience *= 2

    def _give_up(self, gen: PQGen[Any]) -> None:
        # First, because the end of a pipeline waits for the results that are expected, even while it is being closed.
        self._forget_pipeline()
        gen.close()

    def _forget_pipeline(self) -> None:
        """Drop what a pipeline has not sent yet, and what psycopg expects of the server."""
        if self._pipeline is not None:
            self._pipeline.command_queue.clear()
            self._pipeline.result_queue.clear()
            self._doubt_prepared()

    def _doubt_prepared(self) -> None:
        # Psycopg takes statements for prepared as soon as it has queued them. Their names are not used again, so the
        # server may drop those that it has at any time; `clear` alone would have it drop what is prepared next, too.
        prepared = self._prepared
        to_flush = prepared._to_flush  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        names = prepared._names.values()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        doubtful = [*to_flush, *names]
        prepared.clear()
        to_flush.clear()
        to_flush.extend(doubtful)

    def _abandon(self, gen: PQGen[Any] | None = None) -> None:
        """Close the connection without a farewell."""
        if gen is not None:
            self._give_up(gen)
        self._announce_close()
        self.pgconn.finish()

    def _announce_close(self) -> None:
        # The system says nothing of a socket that is closed: a task that waits for it would wait forever.
        if not self.closed:
            trio.lowlevel.notify_closing(self.pgconn.socket)

    async def _try_cancel(self, *, timeout: float = 5.0) -> None:
        # What psycopg does before it reads the rest of a `stream` or a COPY, without a deadline.
        try:
            await self.cancel_safe(timeout=min(timeout, self.cancel_timeout))
        except Error as exc:
            logger.warning("%s: %s: connection closed", self, exc)
            self._abandon()


class TrioServerCursor(AsyncServerCursor[Row]):
    """A server-side cursor that even a cancelled task closes, within the connection's `cancel_timeout`."""

    async def close(self) -> None:
        """Close the cursor, in the server too."""
        with settling():
            await super().close()


def _until_readable() -> Generator[Wait, int, None]:
    yield Wait.R
