"""The pool's resources: single connections of httpcore's, each over a stream that is open already."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

import h2.events
import h2.exceptions
import trio

from ._exchange import Exchange
from ._frames import MOST_STREAMS, REFUSED_STREAM

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._foreign import Foreign
    from ._stream import NetworkStream
    from ._wire import Wire

COMMON_WINDOW: Final = MOST_STREAMS * 2**24
"""Bytes that all streams of a connection may have unread. httpcore gives as much to all together as to each (16 MB), so
that one response which nobody reads would hold up all the others; this is enough for as many as there can be."""
RESETTING: Final = 1.0
"""Seconds that it may take to tell the peer that a stream is abandoned."""


class Connection(ABC):
    """One connection, and what the pool knows of it.

    Invariants:
        leases is how many requests have it
        gone is true once the pool was told to close it
    """

    multiplexed = False

    __slots__ = ("gone", "http", "is_new", "leases", "opener", "prepare", "stream", "uses")

    def __init__(
        self, http: Foreign, stream: NetworkStream, prepare: Callable[[Foreign], Foreign] | None = None
    ) -> None:
        self.http = http
        self.stream = stream
        self.prepare = prepare
        """Makes of a request what the proxy wants."""
        self.leases = 0
        self.uses = 0
        self.gone = False
        self.opener: trio.lowlevel.Task | None = trio.lowlevel.current_task()
        """The task that opened it, until it is lent for the first time."""
        self.is_new = False
        """Whether the request that has it got it straight from its opening."""

    async def send(self, request: Foreign) -> Foreign:
        """Return the response as soon as its headers are there.

        Args:
            request: one of httpcore's, which this may change.

        Raises:
            Exception: httpcore's.
        """
        self.uses += 1
        self.stream.answered = False
        return await self.http.handle_async_request(request if self.prepare is None else self.prepare(request))

    async def close(self) -> None:
        await self.http.aclose()

    def offered(self) -> None:
        """Take note that it is about to be lent."""
        self.is_new = self.opener is trio.lowlevel.current_task()
        self.opener = None

    @abstractmethod
    def is_usable(self) -> bool:
        """Tell whether another request can be sent, as far as can be seen without waiting."""

    @abstractmethod
    def is_in_order(self) -> bool:
        """Tell whether it can be kept after a request has ended."""

    @property
    def capacity(self) -> int:
        """How many requests at a time it carries."""
        return 1

    def was_stale(self) -> bool:
        """Tell whether a failure is one of a connection that its server closed before the request reached it."""
        return not self.is_new and not self.stream.answered

    async def watch(self) -> None:
        """Live as long as the connection, if it can be seen to end while nobody reads."""
        await trio.sleep_forever()

    def is_unprocessed(self, error: BaseException) -> bool:
        """Tell whether ``error`` of httpcore's says that the peer has not processed the request, and will not."""
        return type(error).__name__ == "ConnectionNotAvailable"

    def survives(self, error: BaseException) -> bool:  # noqa: ARG002 - HTTP/1.1 survives none
        """Tell whether other requests may be sent after ``error``, which ended one of them."""
        return False


class SingleConnection(Connection):
    """HTTP/1.1: one request at a time."""

    __slots__ = ()

    def is_usable(self) -> bool:
        if self.uses:
            return bool(self.http.is_idle()) and not self.stream.socket.is_readable()
        # One that comes straight from its opening is not looked at: a server that accepts and closes must fail the
        # request, not be asked for ever. One that nobody has used yet may be readable for the sake of TLS alone.
        return self.is_new or not self.stream.has_hung_up()

    def is_in_order(self) -> bool:
        # What came after the end of the response is no answer to the next request; httpcore would take it for that.
        if not self.http.is_idle() or self.stream.has_unread():
            return False
        return not self.http._h11_state.trailing_data[0]  # noqa: SLF001 - nobody else knows


class SharedConnection(Connection):
    """HTTP/2: as many requests at a time as the peer allows."""

    __slots__ = ("wire",)

    multiplexed = True

    def __init__(self, http: Foreign, wire: Wire) -> None:
        super().__init__(http, wire)
        self.wire = wire

    async def send(self, request: Foreign) -> Foreign:
        exchange = Exchange(request, self.wire, prepared=None if self.uses else self._widen)
        try:
            with exchange.patience:
                return await super().send(request)
            slow = trio.TooSlowError()
            raise self.wire.errors.read_timeout(slow) from slow
        except BaseException as error:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + RESETTING):
                await exchange.close()
                if exchange.stream_id is not None and not isinstance(error, self.wire.errors.protocol):
                    await self.wire.abandon(exchange.stream_id)
            exchange.forget()
            raise

    def _widen(self) -> None:
        self.http._h2_state.increment_flow_control_window(COMMON_WINDOW)  # noqa: SLF001 - there is no other way

    async def reset(self, stream_id: int) -> None:
        """Tell the peer that nobody wants the answer any more."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + RESETTING):
            await self.wire.abandon(stream_id)

    def is_usable(self) -> bool:
        return self.is_in_order()

    def is_in_order(self) -> bool:
        return not self.gone and not self.wire.takes_no_more and bool(self.http.is_available())

    async def watch(self) -> None:
        await self.wire.pump()

    def is_unprocessed(self, error: BaseException) -> bool:
        if _reset_code(error) == REFUSED_STREAM or super().is_unprocessed(error):
            return True
        # A GOAWAY came while the request was still being sent.
        last, refused = self.wire.frames.last_accepted, _closed_stream(error)
        return last is not None and refused is not None and refused > last

    def was_stale(self) -> bool:
        # A peer that leaves resets what it has not answered, along with the connection.
        return self.wire.frames.last_accepted is not None or super().was_stale()

    def survives(self, error: BaseException) -> bool:
        return _reset_code(error) is not None

    @property
    def capacity(self) -> int:
        return self.wire.capacity if self.is_in_order() else 0


def _reset_code(error: BaseException) -> int | None:
    """Return the code with which the peer reset the stream, if that is what httpcore's ``error`` says."""
    event = error.args[0] if error.args else None
    return event.error_code if isinstance(event, h2.events.StreamReset) else None


def _closed_stream(error: BaseException) -> int | None:
    """Return the stream that could not be sent on because it was closed, if that is what httpcore's ``error`` says."""
    cause = error.args[0] if error.args else None
    return cause.stream_id if isinstance(cause, h2.exceptions.StreamClosedError) else None
