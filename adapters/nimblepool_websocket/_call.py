"""One message on its way out, and the reply to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

if TYPE_CHECKING:
    from collections.abc import Hashable

    from websockets.typing import Data


@final
class Call:
    """A request that was handed to an exchange, or a message that expects no reply.

    Args:
        key: the id that its reply will have; ``None`` if it expects none.
        data: what is sent.
        is_text: whether it goes as text.

    Invariants:
        done is set if and only if there is a reply, or it is lost or late, or it expects no reply and was sent
        sent implies that some of it may have reached the server
    """

    __slots__ = ("data", "done", "is_late", "is_lost", "is_text", "key", "reply", "sent")

    def __init__(self, key: Hashable | None, data: bytes, *, is_text: bool) -> None:
        self.key = key
        self.data = data
        self.is_text = is_text
        self.sent = False
        self.is_late = False
        self.is_lost = False
        self.reply: Data | None = None
        self.done = trio.Event()

    def answer(self, reply: Data) -> None:
        """Take the reply."""
        self.reply = reply
        self.done.set()

    def expire(self) -> None:
        """Hear that the time is up."""
        self.is_late = True
        self.done.set()

    def lose(self) -> None:
        """Hear that the socket is gone."""
        self.is_lost = True
        self.done.set()
