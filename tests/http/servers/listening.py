"""A server of the tests: one trio task for each connection, on loopback, that counts what it sees."""

from __future__ import annotations

import math
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio
from trio.testing import MockClock

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

Option: TypeAlias = Any
"""What `serving` takes, passed on by functions that know nothing of it."""
GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError, ConnectionError)
"""What a server sees of a client that went away."""
PATIENCE: Final = 10.0
"""Seconds within which anything that works has happened; nearly everything takes a thousandth of that."""


class Server:
    """What a test sees of a server.

    Invariants:
        living: connections that the server has not closed, and has not seen closed
        most_at_once: the most that ``living`` ever was
    """

    def __init__(self, port: int, *, tls: bool = False) -> None:
        self.port = port
        self.host = "localhost" if tls else "127.0.0.1"
        self.scheme = "https" if tls else "http"
        self.accepted = 0
        self.living = 0
        self.most_at_once = 0
        self._changed = trio.Condition()

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until the condition holds; it is looked at whenever a connection comes or goes, and each 5 ms."""
        with trio.fail_after(PATIENCE if not _clock_is_a_mock() else math.inf):
            while not condition():
                await pause()

    async def until_empty(self) -> None:
        await self.until(lambda: not self.living)

    def enter(self) -> None:
        self.accepted += 1
        self.living += 1
        self.most_at_once = max(self.most_at_once, self.living)

    def leave(self) -> None:
        self.living -= 1


def _clock_is_a_mock() -> bool:
    return isinstance(trio.lowlevel.current_clock(), MockClock)


async def pause() -> None:
    """Let sockets and tasks get on for 2 ms of real time, also where trio's clock stands still."""
    if not _clock_is_a_mock():
        await trio.sleep(0.002)
        return
    await trio.to_thread.run_sync(_nap)


def _nap() -> None:
    import time  # noqa: PLC0415 # so that nobody uses it in a coroutine

    time.sleep(0.002)


async def until(condition: Callable[[], object]) -> None:
    """Wait until the condition holds."""
    for _ in range(2500):
        if condition():
            return
        await pause()
    raise AssertionError("it did not happen within five seconds")


@asynccontextmanager
async def serving(
    handler: Callable[[Any], Awaitable[object]],
    *,
    tls: ssl.SSLContext | None = None,
    path: Path | None = None,
    port: int = 0,
) -> AsyncGenerator[Server]:
    """Serve each connection with ``await handler(stream)`` in a task of its own; leaving the block cuts them off.

    Args:
        handler: may let the errors of `GONE` out; any other fails the test.
        tls: makes the server speak TLS, handshake included.
        path: of a unix socket to listen on, in place of a port of 127.0.0.1.
        port: to listen on; 0 for any that is free.
    """
    listener = _listen(path, port)
    server = Server(0 if path is not None else listener.socket.getsockname()[1], tls=tls is not None)

    async def serve(stream: trio.abc.Stream) -> None:
        server.enter()
        try:
            await _handle(handler, stream, tls)
        finally:
            server.leave()

    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_accept, listener, serve, nursery)
        try:
            yield server
        except BaseException as error:  # comes out as it went in, and in no group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _accept(
    listener: trio.SocketListener, serve: Callable[[trio.abc.Stream], Awaitable[object]], nursery: trio.Nursery
) -> None:
    async with listener:
        while True:
            nursery.start_soon(serve, await listener.accept())


async def _handle(
    handler: Callable[[Any], Awaitable[object]], stream: trio.abc.Stream, tls: ssl.SSLContext | None
) -> None:
    if tls is not None:
        stream = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
    try:
        if isinstance(stream, trio.SSLStream):
            await stream.do_handshake()
        await handler(stream)
    except* GONE:
        pass
    finally:
        await trio.aclose_forcefully(stream)


def _listen(path: Path | None, port: int) -> trio.SocketListener:
    sock = socket.socket(socket.AF_INET if path is None else socket.AF_UNIX, socket.SOCK_STREAM)
    if path is None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port) if path is None else str(path))
    sock.listen(512)
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


def reset(stream: trio.SocketStream) -> None:
    """Close the connection the hard way: the peer sees it reset."""
    linger = b"\x01\0\0\0\0\0\0\0"
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    stream.socket.close()
