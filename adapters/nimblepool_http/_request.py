"""What makes a request one that can be sent again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ._foreign import Foreign

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods that do the same once or twice (RFC 9110, 9.2.2)."""


@final
class Once:
    """A request's body that may not be there a second time, and whether it was asked for."""

    __slots__ = ("_body", "was_read")

    def __init__(self, body: Foreign) -> None:
        self._body = body
        self.was_read = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        self.was_read = True
        parts: AsyncIterator[bytes] = self._body.__aiter__()
        return parts
