"""What a client holds while it leases a socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn, final

import trio

from nimblepool import LeaseExpired

from ._messages import Messages
from ._view import ConnectionView

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Coroutine, Iterable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType
    from typing import Self

    from websockets.trio.client import ClientConnection
    from websockets.typing import Data, DataLike

    from nimblepool import Lease

    from ._socket import Socket


@final
class NotYet:
    """What stands for a lease that was not entered."""

    is_held = False

    @property
    def resource(self) -> NoReturn:
        raise LeaseExpired("this socket was not leased yet: use `async with sockets.connection() as ws`")

    def remove(self, _: object) -> None:
        _ = self.resource


NOT_YET: Final = NotYet()


@final
class LeasedSocket(ConnectionView):
    """A socket for one block: ``async with sockets.connection() as ws``; made by `WebSockets.connection`.

    It has the API of the driver's connection, and refuses with `nimblepool.LeaseExpired` after the block; so does a
    call that was made in the block and begins to run after it. What each method does and raises stands at `Socket`.
    Entering is a checkpoint, and leaving is none.
    """

    __slots__ = ("_checkout", "_lease")

    def __init__(self, checkout: AbstractAsyncContextManager[Lease[Socket]]) -> None:
        self._checkout = checkout
        self._lease: Lease[Socket] | NotYet = NOT_YET

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Self:
        self._lease = await self._checkout.__aenter__()
        return self

    # Plain functions: another coroutine around each would be felt.

    @trio.lowlevel.enable_ki_protection
    def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> Awaitable[bool | None]:
        return self._checkout.__aexit__(exc_type, exc, traceback)

    def send(
        self, message: DataLike | Iterable[DataLike] | AsyncIterable[DataLike], *, text: bool | None = None
    ) -> Coroutine[Any, Any, None]:
        """Send a message; see `Socket.send`."""
        return self._lease.resource.send(message, text=text)

    def recv(self, decode: bool | None = None) -> Coroutine[Any, Any, Data]:
        """Receive a message; see `Socket.recv`."""
        return self._lease.resource.recv(decode)

    def recv_streaming(self, decode: bool | None = None) -> AsyncGenerator[Data]:
        """Receive one message in its fragments; see `Socket.recv_streaming`."""
        return self._socket.recv_streaming(decode)

    def __aiter__(self) -> Messages:
        # Of the lease, not of the socket: the loop may be carried beyond the block.
        return Messages(self)

    def ping(self, data: DataLike | None = None, *, ack_on_close: bool = False) -> Coroutine[Any, Any, trio.Event]:
        """Send a ping; see `Socket.ping`."""
        return self._socket.ping(data, ack_on_close=ack_on_close)

    def pong(self, data: DataLike = b"") -> Coroutine[Any, Any, None]:
        """Send a pong; see `Socket.pong`."""
        return self._socket.pong(data)

    def aclose(self, code: int = 1000, reason: str = "") -> Coroutine[Any, Any, None]:
        """Close the socket; see `Socket.aclose`."""
        return self._socket.aclose(code, reason)

    def wait_closed(self) -> Coroutine[Any, Any, None]:
        """Wait until the socket is closed."""
        return self._socket.wait_closed()

    def remove(self, reason: str = "the client asked for it") -> None:
        """See that the socket is closed, and not lent on, when the block ends.

        Args:
            reason: words for the log.
        """
        self._lease.remove(reason)

    @property
    def raw(self) -> ClientConnection:
        """The driver's connection: what is done to it the pool does not notice."""
        return self._socket.raw

    def __repr__(self) -> str:
        lease = self._lease
        return f"<LeasedSocket, {lease.resource!r}>" if lease.is_held else "<LeasedSocket, not held>"

    @property
    def _socket(self) -> Socket:
        return self._lease.resource
