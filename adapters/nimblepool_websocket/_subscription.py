"""Where one subscriber's messages wait to be read."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Literal, Self, TypeAlias, final

import trio

from ._errors import SlowSubscriber

if TYPE_CHECKING:
    from collections.abc import Callable

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
        len(_items) <= _buffer
        _ended is not None once nothing more comes in; it is raised when _items is empty
    """

    def __init__(self, match: Callable[[Data], object] | None, buffer: int, overflow: Overflow) -> None:
        self._match = match
        self._buffer = buffer
        self._overflow = overflow
        self._items: deque[Data] = deque()
        self._arrived = trio.Event()
        self._room = trio.Event()
        self._ended: Exception | None = None
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
        """
        await trio.lowlevel.checkpoint()
        while not self._items:
            if self._ended is not None:
                raise self._ended
            self._arrived = trio.Event()
            await self._arrived.wait()
        message = self._items.popleft()
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

    async def put(self, message: Data) -> None:
        """Take a message; waits for room only if ``overflow`` is ``"wait"``."""
        while len(self._items) >= self._buffer and self._ended is None:
            if self._overflow != "wait":
                self._overflowed()
                break
            self._room = trio.Event()
            await self._room.wait()
        if self._ended is None:
            self._items.append(message)
            self._arrived.set()

    def end(self, error: Exception) -> None:
        """Take nothing more; what is buffered can still be read."""
        if self._ended is None:
            self._ended = error
        self._arrived.set()
        self._room.set()

    def _overflowed(self) -> None:
        self.dropped += 1
        if self._overflow == "drop_oldest":
            self._items.popleft()
        else:
            self.end(SlowSubscriber(f"{self._buffer} messages waited to be read, and one more came"))
