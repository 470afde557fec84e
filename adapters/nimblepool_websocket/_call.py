"""One message on its way out, and the reply to it."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final, final

import trio

if TYPE_CHECKING:
    from collections.abc import Hashable

    from websockets.typing import Data


class CallState(Enum):
    """Where a call is.

    | state  | event                             | next state |
    |--------|-----------------------------------|------------|
    | QUEUED | `Call.take`: the writer has it    | SENT       |
    | SENT   | `Call.written`, no reply expected | DONE       |
    | SENT   | `Call.answer`                     | DONE       |
    | LATE   | `Call.answer`, just in time       | DONE       |
    | QUEUED | `Call.expire`                     | LATE       |
    | SENT   | `Call.expire`                     | LATE       |
    | QUEUED | `Call.lose`                       | LOST       |
    | SENT   | `Call.lose`                       | LOST       |

    In any other state an event changes nothing.
    """

    QUEUED = "queued"
    SENT = "sent"
    DONE = "done"
    LATE = "late"
    LOST = "lost"


# Before Python 3.12 it takes long to look up a member of an enum.
QUEUED: Final = CallState.QUEUED
SENT: Final = CallState.SENT
DONE: Final = CallState.DONE
LATE: Final = CallState.LATE
LOST: Final = CallState.LOST


@final
class Call:
    """A request that was handed to an exchange, or a message that expects no reply.

    Args:
        key: the id that its reply will have; ``None`` if it expects none.
        data: what is sent.
        is_text: whether it goes as text.

    Invariants:
        done is set if and only if the state is neither QUEUED nor SENT
        was_sent if and only if it has been SENT: some of it may have reached the server
        a call with a key that is DONE has a reply
    """

    __slots__ = ("data", "done", "is_text", "key", "reply", "state", "was_sent")

    def __init__(self, key: Hashable | None, data: bytes, *, is_text: bool) -> None:
        self.key = key
        self.data = data
        self.is_text = is_text
        self.state = QUEUED
        self.was_sent = False
        self.reply: Data | None = None
        self.done = trio.Event()

    @property
    def is_settled(self) -> bool:
        """Whether nothing can happen to it any more."""
        return self.state is DONE or self.state is LOST

    def take(self) -> bool:
        """Hear that it is going to be handed to the network; ``False`` if nobody wants that any more."""
        if self.state is not QUEUED:
            return False
        self.state = SENT
        self.was_sent = True
        return True

    def written(self) -> None:
        """Hear that it was handed to the network."""
        if self.key is None:
            self._end(DONE)

    def answer(self, reply: Data) -> None:
        """Take the reply to what was sent."""
        self.reply = reply
        self.state = DONE
        self.done.set()

    def expire(self) -> None:
        """Hear that the time is up."""
        self._end(LATE)

    def lose(self) -> None:
        """Hear that the socket is gone."""
        self._end(LOST)

    def _end(self, state: CallState) -> None:
        if self.state is QUEUED or self.state is SENT:
            self.state = state
            self.done.set()
