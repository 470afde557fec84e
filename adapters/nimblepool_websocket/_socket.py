"""One WebSocket connection, and what the pool must know of how it is used."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, cast, final

import trio
from websockets.exceptions import ConnectionClosed, ProtocolError
from websockets.protocol import OPEN

from nimblepool import LeaseExpired

from ._errors import SendInterrupted, kind_of_end, lost, translated
from ._life import Life
from ._messages import Messages
from ._view import ConnectionView
from ._watched import unread_frames, when_full, wire_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Collection, Coroutine, Iterable

    from websockets.frames import Frame
    from websockets.protocol import Protocol
    from websockets.streams import StreamReader
    from websockets.trio.client import ClientConnection
    from websockets.typing import Data, DataLike

    from ._errors import SocketClosed
    from ._options import Dial
    from ._wire import Message, Wire


@final
class Socket(ConnectionView):
    """A WebSocket connection; what `WebSocketWorker` opens. It has the API of the driver's connection.

    Errors of a closed socket are `SocketClosed`, which the driver's ``ConnectionClosed`` is, too. One task may receive
    at a time, and any number may send. A call that is made under a lease and begins to run after it (a coroutine that
    was given to ``start_soon``) raises `nimblepool.LeaseExpired`.

    The task that the connection lives in, from opening to its end, is a `Life`. Seen from the pool a socket is

    - being opened, and handed to ``on_open``: `open`, `settle`;
    - resting, or on its way to a client: ``rests`` is set by `settle` and `take_back`;
    - lent: ``rests`` is unset by the worker's ``checkout``; `take_back` ends it, and decides with `is_clean` and
      `is_usable` what becomes of it;
    - given to ``resync``: `settle` ends that;
    - gone: `wait_gone`, then `close`.

    Attributes:
        is_new: whether it was not lent yet; for the pool.
        rests: whether nobody uses it who would read what comes; for the pool.

    Invariants:
        _raw and what is taken from it (_wire, _protocol, _reader, _unread_frames) are there once it was opened, which
            it is before anybody else gets to see it; the driver never replaces these
        _turn counts the leases, and other uses, that have ended
        _using counts the calls that have not come back, and the messages that were not streamed to their end
        _torn implies that a send was cut short: half a message may have been written, or a whole one still waits
        _owed implies that a receive was cut short in this lease, and none has come back since
    """

    _raw: ClientConnection
    _wire: Wire
    _protocol: Protocol
    _reader: StreamReader
    _unread_frames: Collection[Frame]

    def __init__(self, dial: Dial, send_timeout: float) -> None:
        self._life = Life(dial, send_timeout)
        self._turn = 0
        self._using = 0
        self._torn = False
        self._owed = False
        self._overflowed = False
        self.is_new = True
        self.rests = False

    # The driver's API. Plain functions, which know when they were called.

    def send(
        self, message: DataLike | Iterable[DataLike] | AsyncIterable[DataLike], *, text: bool | None = None
    ) -> Coroutine[Any, Any, None]:
        """Send a message, or a fragmented one from an iterable.

        Cancelling it is not safe: it may stop in mid-frame, or leave behind a frame that waits to be written. After
        that nothing more can be sent, by whichever task, and the socket is removed at the end of the lease.

        If the server reads nothing for ``send_timeout`` (at most twice that), the socket is closed.

        Raises:
            SocketClosed: the socket is closed; `SendInterrupted` after a send that was cut short.
            TypeError: the message is of a type that cannot be sent.
            UnicodeEncodeError: the message is text that UTF-8 cannot hold.
        """
        return self._send(self._turn, message, text)

    def recv(self, decode: bool | None = None) -> Coroutine[Any, Any, Data]:
        """Receive a message; cancelling this loses nothing.

        But the socket counts as unclean until a later receive comes back: what was waited for may still come.

        Args:
            decode: whether to return ``str``; by default text comes as ``str`` and binary as ``bytes``.

        Raises:
            SocketClosed: the socket is closed, and every message that came before was received.
            ConcurrencyError: another task receives.
        """
        return self._recv(self._turn, decode)

    def recv_streaming(self, decode: bool | None = None) -> AsyncGenerator[Data]:
        """Receive one message in its fragments; read it to the end, or the socket is removed.

        Raises:
            SocketClosed: the socket is closed.
            ConcurrencyError: another task receives.
        """
        return self._recv_streaming(self._turn, decode)

    def __aiter__(self) -> Messages:
        return Messages(self)

    def ping(self, data: DataLike | None = None, *, ack_on_close: bool = False) -> Coroutine[Any, Any, trio.Event]:
        """Send a ping; the event that is returned is set when its pong comes.

        Raises:
            SocketClosed: the socket is closed; `SendInterrupted` after a send that was cut short.
            ConcurrencyError: a ping with the same data waits for its pong.
        """
        return self._control(self._turn, partial(self._raw.ping, data, ack_on_close=ack_on_close))

    def pong(self, data: DataLike = b"") -> Coroutine[Any, Any, None]:
        """Send a pong that nobody asked for.

        Raises:
            SocketClosed: the socket is closed; `SendInterrupted` after a send that was cut short.
        """
        return self._control(self._turn, partial(self._raw.pong, data))

    def aclose(self, code: int = 1000, reason: str = "") -> Coroutine[Any, Any, None]:
        """Close the socket, within ``close_timeout``; the pool removes it at the end of the lease.

        After a send that was cut short there is no handshake: the server would take it for the rest of the message.
        """
        return self._aclose(self._turn, code, reason)

    async def wait_closed(self) -> None:
        """Wait until the socket is closed."""
        await self._raw.wait_closed()

    @property
    def raw(self) -> ClientConnection:
        """The driver's connection: what is done to it the pool does not notice."""
        return self._raw

    def __repr__(self) -> str:
        return f"<Socket to {self._life.where}, {self._raw.state.name.lower()}>"

    # For the pool

    @property
    def is_clean(self) -> bool:
        """Whether it is usable and nothing is unread or waited for; in one go, since every lease asks for it twice."""
        return (
            not (self._using or self._torn or self._owed or self._unread_frames or self._reader.buffer)
            and self._protocol.state is OPEN
        )

    @property
    def is_usable(self) -> bool:
        """Whether it is open, nothing is half done on it, and nobody uses it any more."""
        return not self._using and not self._torn and self._protocol.state is OPEN

    @property
    def is_alive(self) -> bool:
        """Whether it is open, and nobody has begun to close it."""
        return self._protocol.state is OPEN and not self._torn

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is left."""
        return self._life.is_over

    @property
    def has_unread(self) -> bool:
        """Whether there is something that nobody has received: a message, a frame of one, or the bytes of a frame."""
        return bool(self._unread_frames or self._reader.buffer)

    def closed_error(self) -> SocketClosed:
        """Return what somebody who uses it from now on is told."""
        return lost(self._protocol, SendInterrupted if self._torn else kind_of_end(self._protocol))

    async def open(self) -> None:
        """Connect; when cancelled, nothing of it is left.

        Raises:
            Exception: what the driver raises.
        """
        self._raw = await self._life.begin()
        self._wire = wire_of(self._raw)
        self._protocol = self._raw.protocol
        self._reader = self._protocol.reader
        self._unread_frames = unread_frames(self._raw)
        when_full(self._raw, self._fill)

    def settle(self, who: str) -> None:
        """Hear that ``who``, a hook, is done with it; its calls that have not begun never do.

        Raises:
            SocketClosed: the socket is closed, or a send was cut short.
            ValueError: a call has not come back, or a message was not streamed to its end.
        """
        self._turn += 1
        self._owed = False
        if not (self.is_alive and self._life.is_open):
            raise self.closed_error()
        if self._using:
            raise ValueError(f"{who} has left a call on the socket that has not come back, or half a message")
        self.rests = True

    def take_back(self) -> None:
        """Hear that its lease has ended; calls that have not begun never do."""
        self._turn += 1
        self.is_new = False
        self.rests = True

    def serve(self, service: Callable[[], Awaitable[None]]) -> None:
        """Run ``service``, which reads, in a task that ends with the socket; the socket ends with it, too.

        Raises:
            SocketClosed: the socket is gone already.
        """
        if not self._life.is_open:
            raise self.closed_error()
        self.rests = False
        self._life.serve(service)

    def give_up(self) -> None:
        """Say that half a frame may have been written: it is closed without ceremony."""
        self._torn = True
        self._life.abandon()

    async def wait_gone(self) -> None:
        """Wait until it is closing or closed; `cause_of_death` says why."""
        await self._life.wait_gone()

    def cause_of_death(self) -> Exception:
        """Return what the log says of its end."""
        if self._overflowed:
            return ValueError("the server has sent more than max_queue frames to a socket that rests")
        return self.closed_error()

    def leave(self) -> None:
        """Begin to close it with 1000; the task sees to the rest."""
        self._turn += 1
        if self._torn:
            self._life.abandon()
        else:
            self._life.leave()

    async def close(self) -> None:
        """Close it with 1000, within ``close_timeout``, and end its task; when cancelled, at once."""
        self.leave()
        await self._life.close()

    def _fill(self) -> None:
        """Hear that nothing more is read before somebody receives."""
        if self.rests:
            self._overflowed = True
            self._life.leave()

    # What stands behind the driver's API

    def _begin(self, turn: int) -> None:
        if turn != self._turn:
            raise LeaseExpired("the lease under which this was called has ended; check out another")

    async def _send(self, turn: int, message: Message, text: bool | None) -> None:
        if turn != self._turn:
            self._begin(turn)
        if self._torn:
            raise self.closed_error()
        self._using += 1
        try:
            await self._wire.send(message, text=text)
        except ConnectionClosed as error:
            raise self._translated(error) from error
        except (TypeError, UnicodeEncodeError):
            raise
        except ProtocolError as error:
            # It had to wait for a fragmented message, which then was cut short.
            self._torn = True
            raise self.closed_error() from error
        except BaseException:
            self._torn = True
            raise
        finally:
            self._using -= 1

    async def _recv(self, turn: int, decode: bool | None) -> Data:
        if turn != self._turn:
            self._begin(turn)
        self._using += 1
        try:
            message = await self._raw.recv(decode)
        except ConnectionClosed as error:
            raise translated(error) from error
        except trio.Cancelled:
            self._owed = True
            raise
        finally:
            self._using -= 1
        self._owed = False
        return message

    async def _recv_streaming(self, turn: int, decode: bool | None) -> AsyncGenerator[Data]:
        self._begin(turn)
        # The driver declares an iterator, and it is a generator.
        fragments = cast("AsyncGenerator[Data]", self._raw.recv_streaming(decode))
        is_whole = True
        self._using += 1
        try:
            async with aclosing(fragments):
                async for fragment in fragments:
                    is_whole = False
                    yield fragment
            is_whole = True
            self._owed = False
        except ConnectionClosed as error:
            raise translated(error) from error
        except trio.Cancelled:
            self._owed = True
            raise
        finally:
            # A message that was not read to its end leaves the socket in use, for good.
            self._using -= is_whole

    async def _control(self, turn: int, call: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 - what it returns
        self._begin(turn)
        if self._torn:
            raise self.closed_error()
        self._using += 1
        try:
            return await call()
        except ConnectionClosed as error:
            raise self._translated(error) from error
        except trio.Cancelled:
            self._torn = True
            raise
        finally:
            self._using -= 1

    async def _aclose(self, turn: int, code: int, reason: str) -> None:
        self._begin(turn)
        # The driver first waits for who writes, without end.
        with trio.move_on_after(self._life.patience):
            await self._raw.aclose(code, reason)

    def _translated(self, error: ConnectionClosed) -> SocketClosed:
        return self.closed_error() if self._torn else translated(error)
