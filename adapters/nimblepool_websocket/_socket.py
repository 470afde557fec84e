"""One WebSocket connection, and the task that it lives in.

The driver's connection is an ``async with`` block around a nursery, and that block cannot always be left: with more
unread frames than ``max_queue`` its reader waits for somebody to read them, for ever. So the block stands in a task of
the socket's own, around which there is a cancel scope. The task is trio's, not the pool's: a worker has no nursery, and
no cancellation of a client's may reach it. It ends before ``terminate`` does.
"""

from __future__ import annotations

import logging
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Final, cast, final

import trio
from websockets.exceptions import ConcurrencyError, ConnectionClosed
from websockets.protocol import OPEN, State

from ._errors import SendInterrupted, kind_of_end, lost, translated
from ._messages import Messages
from ._watched import server_closes, unread_frames

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Collection, Iterable

    from websockets.frames import Frame
    from websockets.http11 import Request, Response
    from websockets.trio.client import ClientConnection
    from websockets.typing import Data, DataLike, Subprotocol

    from ._errors import SocketClosed
    from ._options import Dialler

logger = logging.getLogger("nimblepool")
MARGIN: Final = 0.5
"""Seconds that the driver gets beyond ``close_timeout``, which it counts from when its close frame was written."""


@final
class Socket:
    """A WebSocket connection; what `WebSocketWorker` opens. It has the API of the driver's connection.

    Errors of a closed socket are `SocketClosed`, which the driver's ``ConnectionClosed`` is, too. One task may receive
    at a time, and any number may send.

    Attributes:
        is_new: whether it was not lent yet; for the pool.

    Invariants:
        _raw and _unread_frames are there once it was opened, which it is before anybody else gets to see it
        _gone is set once the socket is closing or closed, whoever began it
        _ended is set if and only if the task has ended, and then nothing of the connection is left
        _using counts the calls that have not come back
        _torn implies that half a frame may have been written
    """

    _raw: ClientConnection
    _unread_frames: Collection[Frame]

    def __init__(self, dialler: Dialler) -> None:
        self._dialler = dialler
        self._failure: BaseException | None = None
        self._services: trio.Nursery | None = None
        self._scope = trio.CancelScope()
        self._opened = trio.Event()
        self._gone = trio.Event()
        self._served = trio.Event()
        self._served.set()
        self._ended = trio.Event()
        self._using = 0
        self._torn = False
        self.is_new = True

    # The driver's API

    async def send(
        self, message: DataLike | Iterable[DataLike] | AsyncIterable[DataLike], *, text: bool | None = None
    ) -> None:
        """Send a message, or a fragmented one from an iterable.

        Cancelling it is not safe: it may stop in mid-frame. After that nothing more can be sent, and the socket is
        removed at the end of the lease.

        Raises:
            SocketClosed: the socket is closed; `SendInterrupted` after a send that was cut short.
            TypeError: the message is of a type that cannot be sent.
        """
        if self._torn:
            raise lost(self.raw.protocol, SendInterrupted)
        self._using += 1
        try:
            await self._raw.send(message, text=text)
        except ConnectionClosed as error:
            raise translated(error) from error
        except TypeError:
            raise
        except BaseException:
            self._torn = True
            raise
        finally:
            self._using -= 1

    async def recv(self, decode: bool | None = None) -> Data:
        """Receive a message; cancelling this loses nothing.

        Args:
            decode: whether to return ``str``; by default text comes as ``str`` and binary as ``bytes``.

        Raises:
            SocketClosed: the socket is closed, and every message that came before was received.
            ConcurrencyError: another task receives.
        """
        self._using += 1
        try:
            return await self._raw.recv(decode)
        except ConnectionClosed as error:
            raise translated(error) from error
        finally:
            self._using -= 1

    async def recv_streaming(self, decode: bool | None = None) -> AsyncGenerator[Data]:
        """Receive one message in its fragments; read it to the end, or the socket is removed.

        Raises:
            SocketClosed: the socket is closed.
            ConcurrencyError: another task receives.
        """
        self._using += 1
        try:
            # The driver declares an iterator, and it is a generator.
            fragments = cast("AsyncGenerator[Data]", self._raw.recv_streaming(decode))
            async with aclosing(fragments):
                async for fragment in fragments:
                    yield fragment
        except ConnectionClosed as error:
            raise translated(error) from error
        # Not in a `finally`: a message that was not read to its end leaves the socket in use, for good.
        self._using -= 1

    def __aiter__(self) -> Messages:
        return Messages(self)

    async def ping(self, data: DataLike | None = None, *, ack_on_close: bool = False) -> trio.Event:
        """Send a ping; the event that is returned is set when its pong comes.

        Raises:
            SocketClosed: the socket is closed.
        """
        pong: trio.Event = await self._control(self.raw.ping(data, ack_on_close=ack_on_close))
        return pong

    async def pong(self, data: DataLike = b"") -> None:
        """Send a pong that nobody asked for.

        Raises:
            SocketClosed: the socket is closed.
        """
        await self._control(self.raw.pong(data))

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Close the socket, within ``close_timeout``; the pool removes it at the end of the lease."""
        await self.raw.aclose(code, reason)

    async def wait_closed(self) -> None:
        """Wait until the socket is closed."""
        await self.raw.wait_closed()

    @property
    def raw(self) -> ClientConnection:
        """The driver's connection: what is done to it the pool does not notice."""
        return self._raw

    @property
    def subprotocol(self) -> Subprotocol | None:
        """What was negotiated, or ``None``."""
        return self.raw.subprotocol

    @property
    def request(self) -> Request | None:
        """The opening handshake's request."""
        return self.raw.request

    @property
    def response(self) -> Response | None:
        """The opening handshake's response."""
        return self.raw.response

    @property
    def state(self) -> State:
        """The driver's state of the connection."""
        return self.raw.state

    @property
    def latency(self) -> float:
        """Seconds that the last ping took there and back; 0.0 before the first."""
        return self.raw.latency

    @property
    def close_code(self) -> int | None:
        """The code of the server's close frame, 1005 or 1006 where there was none; ``None`` before the end."""
        return self.raw.close_code

    @property
    def close_reason(self) -> str | None:
        """The reason in the server's close frame; ``None`` before the end."""
        return self.raw.close_reason

    @property
    def local_address(self) -> Any:  # noqa: ANN401 - the driver's own
        """The socket's own address."""
        return self.raw.local_address

    @property
    def remote_address(self) -> Any:  # noqa: ANN401 - the driver's own
        """The server's address."""
        return self.raw.remote_address

    def __repr__(self) -> str:
        return f"<Socket to {self._dialler.where}, {self._raw.state.name.lower()}>"

    # For the pool

    @property
    def is_usable(self) -> bool:
        """Whether it is open, nothing is half done on it, and nobody uses it any more."""
        return not self._using and not self._torn and self._raw.protocol.state is OPEN

    @property
    def is_alive(self) -> bool:
        """Whether it is open, and nobody has begun to close it."""
        return self._raw.protocol.state is OPEN and not self._torn

    @property
    def has_unread(self) -> bool:
        """Whether there is something that nobody has received: a message, a frame of one, or the bytes of a frame."""
        return bool(self._unread_frames or self._raw.protocol.reader.buffer)

    def closed_error(self) -> SocketClosed:
        """Return what somebody who uses it from now on is told."""
        return lost(self.raw.protocol, kind_of_end(self.raw.protocol))

    async def open(self) -> None:
        """Connect; when cancelled, nothing of it is left.

        Raises:
            Exception: what the driver raises.
        """
        trio.lowlevel.spawn_system_task(self._live, name=f"socket to {self._dialler.where}")
        try:
            await self._opened.wait()
        except BaseException:
            await self.kill()
            raise
        if self._failure is not None:
            raise self._failure

    def serve(self, service: Callable[[], Awaitable[None]]) -> None:
        """Run ``service`` in a task that ends with the socket; the socket ends with it, too."""
        assert self._services is not None, "bug: a socket is served that was not opened"
        self._served = trio.Event()
        self._services.start_soon(self._serve, service)

    def give_up(self) -> None:
        """Say that half a frame may have been written: it is closed without ceremony."""
        self._torn = True
        self._gone.set()

    async def wait_gone(self) -> None:
        """Wait until it is closing or closed."""
        await self._gone.wait()

    async def close(self) -> None:
        """Close it with 1000, within ``close_timeout``, and end its task; when cancelled, at once."""
        if self._services is not None and not self._gone.is_set():
            self._services.cancel_scope.cancel()
        self._gone.set()
        try:
            await self._ended.wait()
        finally:
            await self.kill()

    async def kill(self) -> None:
        """Close it without a handshake."""
        self._scope.cancel()
        with trio.CancelScope(shield=True):
            await self._ended.wait()

    async def _control(self, call: Awaitable[Any]) -> Any:  # noqa: ANN401 - what the call returns
        self._using += 1
        try:
            return await call
        except ConnectionClosed as error:
            raise translated(error) from error
        except trio.Cancelled:
            self._torn = True
            raise
        finally:
            self._using -= 1

    async def _live(self) -> None:
        """Be the task in which the connection lives."""
        try:
            with self._scope:
                async with self._dialler.connector() as self._raw:
                    self._unread_frames = unread_frames(self._raw)
                    await self._be_there(self._raw)
                    # The driver's reader may wait for somebody to read, and the block would wait for it.
                    self._scope.cancel()
        except Exception as error:  # noqa: BLE001 - it is `open` that raises it
            self._failed(error)
        finally:
            self._gone.set()
            self._opened.set()
            self._ended.set()

    def _failed(self, error: Exception) -> None:
        if self._opened.is_set():
            logger.error("socket to %s: its task failed", self._dialler.where, exc_info=error)
        self._failure = error

    async def _be_there(self, connection: ClientConnection) -> None:
        try:
            await self._stay(connection)
            if not self._torn and connection.state is OPEN:
                await self._say_goodbye(connection)
        finally:
            # However this ends, who waits for the connection must hear of it.
            with trio.CancelScope(shield=True):
                await connection.close_stream()

    async def _stay(self, connection: ClientConnection) -> None:
        """Be there until the socket has to go."""
        try:
            async with trio.open_nursery() as self._services:
                self._services.start_soon(self._gone_after, connection.wait_closed)
                self._services.start_soon(self._gone_after, server_closes(connection).wait)
                self._opened.set()
                await self._gone.wait()
                if not self._torn:
                    await self._hear_out(connection)
                self._services.cancel_scope.cancel()
        finally:
            self._services = None

    async def _hear_out(self, connection: ClientConnection) -> None:
        """Let the server finish closing, and what reads from the socket read what came before that."""
        with trio.move_on_after(self._patience):
            await connection.aclose()
            await connection.close_stream()
            await self._served.wait()

    async def _say_goodbye(self, connection: ClientConnection) -> None:
        with trio.move_on_after(self._patience):
            async with trio.open_nursery() as nursery:
                # The server's own close frame stands behind what nobody has read.
                nursery.start_soon(_drain, connection)
                await connection.aclose()
                nursery.cancel_scope.cancel()

    @property
    def _patience(self) -> float:
        timeout = self._dialler.close_timeout
        return float("inf") if timeout is None else timeout + MARGIN

    async def _gone_after(self, wait: Callable[[], Awaitable[None]]) -> None:
        await wait()
        self._gone.set()

    async def _serve(self, service: Callable[[], Awaitable[None]]) -> None:
        try:
            await service()
        except Exception:
            logger.exception("socket to %s: what serves it failed", self._dialler.where)
        finally:
            self._gone.set()
            self._served.set()


async def _drain(connection: ClientConnection) -> None:
    # One who streams, or never came back from it, is in the way: then the closing takes its whole time.
    with suppress(ConnectionClosed, ConcurrencyError):
        while True:
            await connection.recv(decode=False)
