"""The task that a connection lives in.

The driver's connection is an ``async with`` block around a nursery, and that block cannot always be left: with more
unread frames than ``max_queue`` its reader waits for somebody to read them, for ever. So the block stands in a task of
the socket's own, around which there is a cancel scope. The task is trio's, not the pool's: a worker has no nursery, and
no cancellation of a client's may reach it. It ends before ``terminate`` does.

A life, from top to bottom:

=========  ===================================================================  =====================================
it is      from when                                                            what the task does
=========  ===================================================================  =====================================
opening    `begin`                                                              lets the driver connect
open       _opened is set, by the task                                          waits for _gone; the service runs
leaving    `leave` has cancelled _services, while the connection is in order    says goodbye with 1000, and reads what
                                                                                is in the way of the answer
gone       _gone is set: by the connection (`Wire.ending`: the server's close   hears out: finishes closing, and lets
           frame, a breach of protocol, a cut, the end of TCP), by a write      the service read what came before; or
           that is stalled, by the end of the service, by `abandon`             only closes TCP after a cut
ended      _ended is set, by the task; `kill` makes it so at once               nothing: the task is over
=========  ===================================================================  =====================================

Nothing of this takes longer than `patience`, but opening, which the driver's ``open_timeout`` bounds.
"""

from __future__ import annotations

import logging
import signal
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, cast, final

import trio
from websockets.exceptions import ConcurrencyError, ConnectionClosed
from websockets.protocol import OPEN

from ._options import MARGIN
from ._watched import wire_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from websockets.trio.client import ClientConnection

    from ._options import Dial
    from ._wire import Wire

logger = logging.getLogger("nimblepool")


@final
class Life:
    """The task of one connection, and how it is told to end.

    Args:
        dial: opens the connection.
        send_timeout: seconds after which a write that does not get on costs the connection.

    Attributes:
        where: the server, as it may be shown.
        patience: seconds that closing may take, at most.

    Invariants:
        _connection and _wire are there once _opened is set, unless _failure is
        _failure is not None implies that the connection was never there for anybody
        _services is not None if and only if it is open, or heard out
        _gone is the wire's ``ending`` from when there is a wire
        _served is not set if and only if the service runs
        _ended is set if and only if the task has ended, and then nothing of the connection is left
    """

    _connection: ClientConnection
    _wire: Wire

    def __init__(self, dial: Dial, send_timeout: float) -> None:
        self.where = dial.where
        self.patience = inf if dial.close_timeout is None else dial.close_timeout + MARGIN
        self._connector = dial.connector
        self._send_timeout = send_timeout
        self._failure: BaseException | None = None
        self._services: trio.Nursery | None = None
        self._scope = trio.CancelScope()
        self._opened = trio.Event()
        self._gone = trio.Event()
        self._served = trio.Event()
        self._served.set()
        self._ended = trio.Event()

    @property
    def is_open(self) -> bool:
        """Whether it was opened, and nobody has begun to end it."""
        return self._services is not None and not self._gone.is_set()

    @property
    def is_over(self) -> bool:
        """Whether the task has ended."""
        return self._ended.is_set()

    async def begin(self) -> ClientConnection:
        """Connect; when cancelled, nothing is left.

        Raises:
            Exception: what the driver raises.
        """
        trio.lowlevel.spawn_system_task(self._live, name=f"socket to {self.where}")
        try:
            await self._opened.wait()
        except BaseException:
            await self.kill()
            raise
        if self._failure is not None:
            raise self._failure
        return self._connection

    def serve(self, service: Callable[[], Awaitable[None]]) -> None:
        """Run ``service`` in a task that ends with the connection; the connection ends with it, too."""
        assert self._services is not None, "bug: a connection is served that is not open"
        self._served = trio.Event()
        self._services.start_soon(self._serve, service)

    def abandon(self) -> None:
        """Close TCP soon, without ceremony, and let nobody write any more."""
        self._wire.cut()

    def leave(self) -> None:
        """Begin to close with 1000."""
        if self._services is not None and not self._gone.is_set():
            self._services.cancel_scope.cancel()
        self._gone.set()

    async def wait_gone(self) -> None:
        """Wait until it is leaving or gone."""
        await self._gone.wait()

    async def close(self) -> None:
        """Close with 1000, within `patience`, and end the task; when cancelled, at once."""
        self.leave()
        try:
            await self._ended.wait()
        finally:
            await self.kill()

    async def kill(self) -> None:
        """Close without a handshake."""
        self._scope.cancel()
        with trio.CancelScope(shield=True):
            await self._ended.wait()

    # What follows runs in the task, and in its children, which have no protection from Ctrl-C but their own.

    async def _live(self) -> None:
        try:
            with self._scope:
                async with self._connector as self._connection:
                    await self._be_there(self._connection)
                    # The driver's reader may wait for somebody to read, and the block would wait for it.
                    self._scope.cancel()
        except trio.Cancelled:
            raise
        except BaseException as error:  # noqa: BLE001 - `begin` raises it; out of here it would crash trio
            self._failed(error)
        finally:
            self._gone.set()
            self._opened.set()
            self._ended.set()

    def _failed(self, error: BaseException) -> None:
        if not self._opened.is_set():
            self._failure = error
            return
        logger.error("socket to %s: its task failed", self.where, exc_info=error)
        if _has_interrupt(error):
            # Trio sees that it comes to the main task.
            signal.raise_signal(signal.SIGINT)

    async def _be_there(self, connection: ClientConnection) -> None:
        self._wire = wire_of(connection)
        self._gone = self._wire.ending
        try:
            await self._stay(connection)
            if not self._wire.is_cut and connection.state is OPEN:
                await self._say_goodbye(connection)
        finally:
            # However this ends, who waits for the connection must hear of it.
            with trio.CancelScope(shield=True):
                await connection.close_stream()

    async def _stay(self, connection: ClientConnection) -> None:
        """Be there until the socket has to go."""
        try:
            async with trio.open_nursery() as self._services:
                self._services.start_soon(self._abandon_when_stalled, connection)
                self._opened.set()
                await self._gone.wait()
                if not self._wire.is_cut:
                    await self._hear_out(connection)
                self._services.cancel_scope.cancel()
        finally:
            self._services = None

    async def _hear_out(self, connection: ClientConnection) -> None:
        """Let the server finish closing, and what reads from the socket read what came before that."""
        with trio.move_on_after(self.patience):
            await connection.aclose()
            await connection.close_stream()
            await self._served.wait()

    async def _say_goodbye(self, connection: ClientConnection) -> None:
        with trio.move_on_after(self.patience):
            async with trio.open_nursery() as nursery:
                # The server's own close frame stands behind what nobody has read.
                nursery.start_soon(_drain, connection)
                await connection.aclose()
                nursery.cancel_scope.cancel()

    @trio.lowlevel.enable_ki_protection
    async def _abandon_when_stalled(self, connection: ClientConnection) -> None:
        await self._wire.stalled(self._send_timeout)
        reason = f"the server has read nothing of a message for {self._send_timeout:g} s"
        connection.set_connection_exc(TimeoutError(reason))
        self.abandon()

    @trio.lowlevel.enable_ki_protection
    async def _serve(self, service: Callable[[], Awaitable[None]]) -> None:
        try:
            await service()
        except Exception:
            logger.exception("socket to %s: what serves it failed", self.where)
        finally:
            self._gone.set()
            self._served.set()


@trio.lowlevel.enable_ki_protection
async def _drain(connection: ClientConnection) -> None:
    # One who streams, or never came back from it, is in the way: then the closing takes its whole time.
    with suppress(ConnectionClosed, ConcurrencyError):
        while True:
            await connection.recv(decode=False)


def _has_interrupt(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return any(map(_has_interrupt, group.exceptions))
    return isinstance(error, KeyboardInterrupt)
