"""The network stream that httpcore's connections read and write, over a stream of trio's."""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, cast

import trio

if TYPE_CHECKING:
    import ssl

    from ._foreign import Foreign

_HUNG_UP = getattr(select, "POLLRDHUP", 0)


class StreamErrors(NamedTuple):
    """The exceptions of one httpcore that its network streams raise."""

    read: type[Exception]
    read_timeout: type[Exception]
    write: type[Exception]
    write_timeout: type[Exception]
    connect: type[Exception]
    connect_timeout: type[Exception]
    protocol: type[Exception]


class NetworkStream(trio.abc.AsyncResource):
    """An httpcore ``AsyncNetworkStream``. Each pair of libraries has a subclass that is one by class, too.

    It differs from httpcore's own in that it knows whether the peer has answered, and costs less: one cancel scope
    for each call is all that a time-out takes.
    """

    errors: ClassVar[StreamErrors]

    def __init__(self, stream: trio.SocketStream | trio.SSLStream[Any]) -> None:
        self.stream = stream
        self.answered = False
        """Whether anything was received since this was last set to false."""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what is there, at most ``max_bytes``; nothing at the end of the stream."""
        data: bytes | bytearray | None = None
        try:
            if timeout is None:
                data = await self.stream.receive_some(max_bytes)
            else:
                with trio.CancelScope(deadline=trio.current_time() + timeout):
                    data = await self.stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise self.errors.read(error) from error
        if data is None:
            slow = trio.TooSlowError()
            raise self.errors.read_timeout(slow) from slow
        if data:
            self.answered = True
        return bytes(data)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of ``buffer``."""
        if not buffer:
            return
        scope = None
        try:
            if timeout is None:
                await self.stream.send_all(buffer)
            else:
                with trio.CancelScope(deadline=trio.current_time() + timeout) as scope:
                    await self.stream.send_all(buffer)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise self.errors.write(error) from error
        if scope is not None and scope.cancelled_caught:
            slow = trio.TooSlowError()
            raise self.errors.write_timeout(slow) from slow

    async def aclose(self) -> None:
        """Close it; under a cancellation, at once."""
        await self.stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> Self:
        """Return the stream that speaks TLS over this one."""
        secure = trio.SSLStream(
            self.stream, ssl_context=ssl_context, server_hostname=server_hostname, https_compatible=True
        )
        try:
            with trio.fail_after(trio_seconds(timeout)):
                await secure.do_handshake()
        except trio.TooSlowError as error:
            await trio.aclose_forcefully(self)
            raise self.errors.connect_timeout(error) from error
        except trio.BrokenResourceError as error:
            await trio.aclose_forcefully(self)
            raise self.errors.connect(error) from error
        except BaseException:
            await trio.aclose_forcefully(self)
            raise
        return type(self)(secure)

    def get_extra_info(self, info: str) -> Foreign:
        """Return ``ssl_object``, ``client_addr``, ``server_addr``, ``socket``, ``is_readable``, or ``None``."""
        if info == "ssl_object":
            return cast("Any", self.stream)._ssl_object if isinstance(self.stream, trio.SSLStream) else None  # noqa: SLF001 - as httpcore does: there is no other way
        if info == "client_addr":
            return self.socket.getsockname()
        if info == "server_addr":
            return self.socket.getpeername()
        if info == "socket":
            return self.socket
        if info == "is_readable":
            return self.socket.is_readable()
        return None

    @property
    def socket(self) -> trio.socket.SocketType:
        """The socket at the bottom."""
        stream: Any = self.stream
        while isinstance(stream, trio.SSLStream):
            stream = cast("Any", stream).transport_stream
        return cast("trio.SocketStream", stream).socket

    def has_unread(self) -> bool:
        """Tell whether TLS has more than was read: it takes what the socket has, and hands it on record by record."""
        stream: Any = self.stream
        while isinstance(stream, trio.SSLStream):
            layer = cast("Any", stream)
            if layer._incoming.pending or layer._ssl_object.pending():  # noqa: SLF001 - nobody else knows
                return True
            stream = layer.transport_stream
        return False

    def has_hung_up(self) -> bool:
        """Tell whether the peer has closed its side, whatever it sent before."""
        sock = self.socket
        if sock.fileno() < 0:
            return True
        if _HUNG_UP:
            poll = select.poll()
            poll.register(sock.fileno(), _HUNG_UP)
            return bool(poll.poll(0))
        return sock.is_readable() and _ends(sock)


def trio_seconds(timeout: float | None) -> float:
    """Return the time-out as trio wants it."""
    return float("inf") if timeout is None else timeout


def _ends(sock: trio.socket.SocketType) -> bool:
    """Tell whether nothing but the end of the stream is there to be read."""
    duplicate = socket.socket(fileno=sock.fileno())
    try:
        return not duplicate.recv(1, socket.MSG_PEEK)
    except OSError:
        return True
    finally:
        duplicate.detach()
