"""A peer that speaks WebSocket by hand, so that it can misbehave: the test writes the frames."""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Awaitable, Callable

GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError, ConnectionError)
PATIENCE: Final = 10.0
"""Seconds within which anything that works has happened; nearly everything takes a thousandth of that."""


class Peer:
    """One connection, after the handshake."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._protocol = ServerProtocol(max_size=None)
        self._frames: deque[Frame] = deque()

    async def shake_hands(self) -> None:
        while True:
            self._protocol.receive_data(bytes(await self.stream.receive_some()))
            for event in self._protocol.events_received():
                assert isinstance(event, Request)
                self._protocol.send_response(self._protocol.accept(event))
                await self._flush()
                return

    async def frame(self, opcode: Opcode, data: bytes, *, fin: bool = True) -> None:
        await self.stream.send_all(Frame(opcode, data, fin).serialize(mask=False))

    async def text(self, text: str) -> None:
        await self.frame(Opcode.TEXT, text.encode())

    async def close(self, code: int, reason: str = "") -> None:
        await self.frame(Opcode.CLOSE, Close(code, reason).serialize())

    async def receive(self) -> Frame | None:
        """Return the next frame, ``None`` at the end; pings are not answered, and closes neither."""
        while True:
            self._frames += [event for event in self._protocol.events_received() if isinstance(event, Frame)]
            if self._frames:
                return self._frames.popleft()
            data = bytes(await self.stream.receive_some())
            if not data:
                return None
            self._protocol.receive_data(data)

    async def until_closed(self) -> Frame | None:
        """Read until the client closes, and close in return; return its close frame, ``None`` if there was none."""
        while (frame := await self.receive()) is not None:
            if frame.opcode is Opcode.CLOSE:
                await self.frame(Opcode.CLOSE, bytes(frame.data))
                return frame
        return None

    async def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            await self.stream.send_all(data)


class Listener:
    """What a test sees of the server."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.uri = f"ws://127.0.0.1:{port}"
        self.accepted = 0
        self.living = 0


@asynccontextmanager
async def serving(
    handler: Callable[[Peer], Awaitable[object]], *, tls: ssl.SSLContext | None = None
) -> AsyncGenerator[Listener]:
    """Serve each connection with ``await handler(peer)``; the connection is closed when that returns."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port: int = listener.socket.getsockname()[1]
    seen = Listener(port)

    async def serve(plain: trio.abc.Stream) -> None:
        seen.accepted += 1
        seen.living += 1
        stream = plain if tls is None else trio.SSLStream(plain, tls, server_side=True)
        try:
            async with stream:
                peer = Peer(stream)
                await peer.shake_hands()
                await handler(peer)
        except GONE:
            pass
        finally:
            seen.living -= 1

    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        try:
            yield seen
        except BaseException as error:  # comes out as it went in, and in no group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def say_nothing(_: Peer) -> None:
    """Neither read nor write."""
    await trio.sleep_forever()


async def until(condition: Callable[[], object]) -> None:
    """Wait until the condition holds."""
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - nobody could set an event
            await trio.sleep(0.002)
