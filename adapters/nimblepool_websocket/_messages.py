"""What comes in, as an iteration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self, final

from ._errors import SocketClosedOK

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from websockets.typing import Data


class _Receiver(Protocol):
    def recv(self) -> Awaitable[Data]: ...


@final
class Messages:
    """``async for message in ws``: ends when the socket is closed in good order. It may be left at any time.

    Not a generator: an abandoned one would have to be closed, and whoever leaves a loop forgets that.
    """

    __slots__ = ("_receiver",)

    def __init__(self, receiver: _Receiver) -> None:
        self._receiver = receiver

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Data:
        try:
            return await self._receiver.recv()
        except SocketClosedOK:
            raise StopAsyncIteration from None
