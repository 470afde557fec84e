"""Where one subscriber's messages wait to be read."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Literal, Self, TypeAlias, final

import trio

from ._errors import SlowSubscriber

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from websockets.typing import Data

Overflow: TypeAlias = Literal["drop_oldest", "close", "wait"]
"""What happens to a message for a subscriber whose buffer is full."""
OVERFLOWS: tuple[Overflow, ...] = ("drop_oldest", "close", "wait")


@final
class Subscription:
    """The unsolicited messages of the shared sockets: ``async for message in messages``. One task reads it.

    Attributes:
        dropped: messages lost because the buffer was full.
        losses: shared sockets that were closed, for whatever reason, since the subscription began: what the server sent
            before the next one was open is missing here.

    Invariants:
        len(_items) <= _buffer, but for what a lost socket had brought while its reader waited for room
        _ended is not None once nothing more comes in; it is raised, as it was then, when _items is empty and somebody
            reads
        _arrived and _room are replaced only when they are set: nobody waits for an old one
    """

    def __init__(self, match: Callable[[Data], object] | None, buffer: int, overflow: Overflow) -> None:
        self._match = match
        self._buffer = buffer
        self._overflow = overflow
        self._items: deque[Data] = deque()
        self._arrived = trio.Event()
        self._room = trio.Event()
        self._is_read = False
        self._ended: BaseException | None = None
        self._traceback: TracebackType | None = None
        self.dropped = 0
        self.losses = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Data:
        """Return the next message; cancelling this loses nothing.

        Raises:
            SlowSubscriber: the buffer was full once, and ``overflow`` is ``"close"``.
            nimblepool.PoolClosed: the pool is closed.
            StopAsyncIteration: the subscription's block has ended.
            trio.BusyResourceError: another task is reading.
            BaseException: what ``match`` raised.
        """
        if self._is_read:
            raise trio.BusyResourceError("another task is reading this subscription: each needs one of its own")
        self._is_read = True
        try:
            await trio.lowlevel.checkpoint()
            await self._wait_for_message()
            message = self._items.popleft()
        finally:
            self._is_read = False
        self._room.set()
        return message

    @property
    def waiting(self) -> int:
        """Messages that can be read without waiting."""
        return len(self._items)

    # For the hub

    def wants(self, message: Data) -> bool:
        """Tell whether the message is for this subscriber."""
        return self._ended is None and (self._match is None or bool(self._match(message)))

    async def put(self, message: Data, over: trio.Event) -> None:
        """Take a message; waits for room only if ``overflow`` is ``"wait"``, and only until ``over`` is set."""
        while len(self._items) >= self._buffer and self._ended is None:
            if self._overflow != "wait":
                self._overflowed()
                break
            if over.is_set():
                # To wait would hold back nobody any more, and what was read from the socket would be lost.
                break
            await self._wait_for_room()
        if self._ended is None:
            self._items.append(message)
            self._arrived.set()

    def nudge(self) -> None:
        """Let who waits for room look again."""
        self._room.set()

    def end(self, error: BaseException) -> None:
        """Take nothing more; what is buffered can still be read."""
        if self._ended is None:
            self._ended = error
            self._traceback = error.__traceback__
        self._arrived.set()
        self._room.set()

    async def _wait_for_message(self) -> None:
        while not self._items:
            if self._ended is not None:
                # It may be read again and again: without this the traceback would grow each time.
                raise self._ended.with_traceback(self._traceback)
            if self._arrived.is_set():
                self._arrived = trio.Event()
            await self._arrived.wait()

    async def _wait_for_room(self) -> None:
        if self._room.is_set():
            self._room = trio.Event()
        await self._room.wait()

    def _overflowed(self) -> None:
        self.dropped += 1
        if self._overflow == "drop_oldest":
            self._items.popleft()
        else:
            self.end(SlowSubscriber(f"{self._buffer} messages waited to be read, and one more came"))
