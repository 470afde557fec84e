"""The adapter's own errors, each also the pool's, and the driver's where the driver has one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from nimblepool import PoolError

from ._driver import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK

if TYPE_CHECKING:
    from websockets.protocol import Protocol

C = TypeVar("C", bound="SocketClosed")
NO_CLOSE_FRAME: Final = 1006
IN_GOOD_ORDER: Final = frozenset({1000, 1001, 1005})
"""Normal, going away, and a close frame without a code."""


class SocketClosed(PoolError, ConnectionClosed):
    """The socket is closed: by the server, by a failure, or by ``aclose``.

    Where we have closed it, because of a message above ``max_size`` say, the text has our code, and ``sent.code``.
    """

    @property
    def code(self) -> int:
        """The code of the server's close frame; 1005 if the frame had none, 1006 if there was no frame."""
        return NO_CLOSE_FRAME if self.rcvd is None else self.rcvd.code

    @property
    def reason(self) -> str:
        """The reason in the server's close frame; empty if there was none."""
        return "" if self.rcvd is None else self.rcvd.reason

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class SocketClosedOK(SocketClosed, ConnectionClosedOK):
    """Both sides closed it in good order: with 1000, 1001 or no code."""


class SocketClosedError(SocketClosed, ConnectionClosedError):
    """It was closed with another code, or lost."""


class SendInterrupted(SocketClosedError):
    """An earlier send was cut short: the server may have got half a frame, and would take what follows for its rest."""

    def __str__(self) -> str:
        return "a send was cut short, perhaps in mid-frame: nothing more can be sent; the socket will be removed"


class RequestLost(SocketClosedError):
    """The socket was lost before the reply came, or the pool closed it after ``close_grace``.

    Attributes:
        was_sent: whether the request had been handed to the network: then the server may have acted on it. One that was
            not sent had no effect.
    """

    was_sent: bool = True

    def __str__(self) -> str:
        what = "after the request was sent: the server may have acted on it" if self.was_sent else "before it was sent"
        why = super().__str__() if self.__cause__ is None else str(self.__cause__)
        return f"the socket was lost {what} ({why})"


class RequestTimeout(PoolError, TimeoutError):
    """No reply came in time.

    Attributes:
        was_sent: whether the request had been handed to the network.
    """

    def __init__(self, message: str, *, was_sent: bool) -> None:
        super().__init__(message)
        self.was_sent = was_sent


class SlowSubscriber(PoolError):
    """A subscription with ``overflow="close"`` was read too slowly, and has ended; what was buffered has been read."""


class JSONRPCError(Exception):
    """The server answered a JSON-RPC request with an error.

    Attributes:
        code: the error's number.
        message: the server's text.
        data: whatever else the server said, or ``None``.
    """

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message
        self.data = data


def translated(error: ConnectionClosed) -> SocketClosed:
    """Make ours of the driver's error."""
    kind = SocketClosedOK if isinstance(error, ConnectionClosedOK) else SocketClosedError
    return kind(error.rcvd, error.sent, error.rcvd_then_sent)


def lost(protocol: Protocol, kind: type[C]) -> C:
    """Make the error for what became of a connection; unlike the driver's it can be had before all is closed."""
    received, sent = protocol.close_rcvd, protocol.close_sent
    in_order = None if received is None or sent is None else bool(protocol.close_rcvd_then_sent)
    return kind(received, sent, in_order)


def kind_of_end(protocol: Protocol) -> type[SocketClosed]:
    """Tell whether both sides have closed, or are closing, in good order."""
    received = protocol.close_rcvd
    return SocketClosedOK if received is not None and received.code in IN_GOOD_ORDER else SocketClosedError
