"""The network stream under an HTTP/2 connection."""

from __future__ import annotations

import select
from contextlib import suppress
from typing import TYPE_CHECKING, Final, final

import trio
from trio.lowlevel import ParkingLot

from ._frames import Frames
from ._stream import NetworkStream, trio_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

GREETING: Final = 1.0
"""Seconds that the peer has to send its settings; after that it is lent one request, as httpcore would do it."""
WRITING: Final = 30.0
"""Seconds that a write which was cancelled may go on before the connection is given up."""
_CHUNK: Final = 65_536


@final
class Mail:
    """What has arrived for one stream and was not asked for yet.

    Invariant: frames is how many; once ended, no more will come
    """

    __slots__ = ("ended", "frames", "lot")

    def __init__(self) -> None:
        self.frames = 0
        self.ended = False
        self.lot = ParkingLot()

    async def wait(self) -> None:
        """Wait until there is something to be read for this stream."""
        while not self.frames and not self.ended:
            await self.lot.park()
        self.frames -= 1


class Wire(NetworkStream):
    """Shows httpcore of an HTTP/2 connection what it can live with (`_frames` says why), and the pool all of it.

    One task reads, for as long as the connection lives (`pump`): it hears of GOAWAY, new limits and the end at once,
    also while nobody uses the connection. In httpcore, whoever waits for an answer reads for all, and an answer that
    has come waits until its task gets the lock from another one, which waits for its own. So a request enters httpcore
    only when something has arrived for its stream (`mail`).

    A write is never cut short: half a frame would cost every other stream of the connection. What a cancelled request
    has not sent yet goes out with the next one's.

    Invariants:
        _unread is what httpcore may read
        broken is true once a frame may have been sent by half
        _ended is true once nothing more can be read; _failure says why, if it is not the end of the stream
    """

    def __init__(self, stream: NetworkStream) -> None:
        super().__init__(stream.stream)
        self.frames = Frames()
        self.on_change: Callable[[], None] | None = None
        """Called when the peer has changed how many streams it takes."""
        self.broken = False
        self.is_read = False
        """Whether httpcore has read the peer's settings."""
        self._mail: dict[int, Mail] = {}
        self._unread = bytearray()
        self._arrival = ParkingLot()
        self._ended = False
        self._failure: Exception | None = None
        self._turn = trio.Lock()

    @property
    def takes_no_more(self) -> bool:
        """Whether no new stream may be begun here, for ever."""
        return self.broken or self._ended or self.frames.last_accepted is not None

    @property
    def capacity(self) -> int:
        """How many streams there may be at a time."""
        if self.takes_no_more:
            return 0
        return 1 if self.frames.max_streams is None else self.frames.max_streams

    async def greet(self) -> None:
        """Send the preface, and wait for the peer's settings.

        Raises:
            Exception: httpcore's: the peer has closed the connection.
        """
        self.frames.greet()
        await self._flush(GREETING)
        with trio.move_on_after(GREETING):
            while self.frames.max_streams is None:
                await self._read_on()
                if self._ended:
                    raise self._failure or self.errors.protocol("Server disconnected")

    async def pump(self) -> None:
        """Read until the end."""
        while not self._ended:
            await self._read_on()
            if self.frames.for_peer and self._is_writable() and not self._turn.locked():
                with suppress(self.errors.write, self.errors.write_timeout):
                    await self._flush(GREETING)

    def expect(self, stream: int) -> Mail:
        """Return where to hear of what arrives for ``stream``, from now on."""
        mail = self._mail[stream] = Mail()
        mail.ended = self._ended
        return mail

    def forget(self, stream: int) -> None:
        """Expect nothing any more."""
        self._mail.pop(stream, None)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with trio.CancelScope(deadline=trio.current_time() + trio_seconds(timeout)):
            if self._unread or self._ended:
                await trio.lowlevel.checkpoint_if_cancelled()
            while not self._unread and not self._ended:
                await self._arrival.park()
            if self._failure is not None and not self._unread:
                raise self._failure
            data = bytes(self._unread[:max_bytes])
            del self._unread[:max_bytes]
            self.is_read = True
            return data
        slow = trio.TooSlowError()
        raise self.errors.read_timeout(slow) from slow

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if buffer:
            self.frames.sent(buffer)
            self._deliver()
        if self.frames.for_peer:
            # A peer that closes may have sent every answer before: what can still be read will tell.
            with suppress(self.errors.write):
                await self._flush(timeout)

    async def aclose(self) -> None:
        self._end(None)
        await super().aclose()

    async def abandon(self, stream: int) -> None:
        """Reset a stream whose answer nobody reads any more."""
        self.frames.abandon(stream)
        self._deliver()
        with suppress(self.errors.write, self.errors.write_timeout):
            await self._flush(WRITING)

    async def _read_on(self) -> None:
        try:
            data = await super().read(_CHUNK)
        except (self.errors.read, self.errors.read_timeout) as error:
            self._end(error)
            return
        if not data:
            self._end(None)
            return
        before = self.capacity
        self._unread += self.frames.received(data)
        self._deliver()
        if self.capacity != before and self.on_change is not None:
            self.on_change()

    def _deliver(self) -> None:
        """Wake those for whom something has arrived."""
        self._unread += self.frames.interjection()
        for stream in self.frames.arrived:
            if (mail := self._mail.get(stream)) is not None:
                mail.frames += 1
                mail.lot.unpark_all()
        for stream in self.frames.ended:
            if (mail := self._mail.get(stream)) is not None:
                mail.ended = True
                mail.lot.unpark_all()
        self.frames.arrived.clear()
        self.frames.ended.clear()
        self._arrival.unpark_all()

    def _end(self, failure: Exception | None) -> None:
        if not self._ended:
            self._ended = True
            self._failure = failure
            for mail in self._mail.values():
                mail.ended = True
                mail.lot.unpark_all()
            self._arrival.unpark_all()

    async def _flush(self, timeout: float | None) -> None:
        deadline = trio.current_time() + trio_seconds(timeout)
        if not await self._may_write(deadline):
            raise self._too_slow()
        try:
            # From here on nothing may come between, for what is taken out of the queue must be sent.
            sent = await self._send_all(max(deadline, trio.current_time()))
        finally:
            self._turn.release()
        if not sent:
            raise self._too_slow()

    async def _may_write(self, deadline: float) -> bool:
        """Wait for the turn to write, and until something can be written; tell whether it came by ``deadline``."""
        if not self._turn.locked() and self._is_writable():
            self._turn.acquire_nowait()
            return True
        with trio.CancelScope(deadline=deadline) as scope:
            await self._turn.acquire()
            try:
                if not self._is_writable():
                    await self.socket.wait_writable()
            except BaseException:
                self._turn.release()
                raise
        return not scope.cancelled_caught

    def _too_slow(self) -> Exception:
        slow = trio.TooSlowError()
        error = self.errors.write_timeout(slow)
        error.__cause__ = slow
        return error

    def _is_writable(self) -> bool:
        descriptor = self.socket.fileno()
        if descriptor < 0:
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        return bool(poll.poll(0))

    async def _send_all(self, deadline: float) -> bool:
        """Send what is queued; tell whether it was all sent by ``deadline``."""
        while self.frames.for_peer:
            data = bytes(self.frames.for_peer)
            self.frames.for_peer.clear()
            try:
                with trio.CancelScope(shield=True, deadline=min(deadline, trio.current_time() + WRITING)) as scope:
                    await super().write(data)
            except BaseException:
                self.broken = True
                raise
            if scope.cancelled_caught:
                self.broken = True
                return False
        return True
