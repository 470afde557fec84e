"""WebSocket clients, each with as many sockets as it is told, all open before they are asked.

`taking_turns` is how a client without a pool shares its sockets: that, and nothing of a pool's.
"""

from __future__ import annotations

from itertools import count, cycle
from typing import TYPE_CHECKING, TypeAlias

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from benchmarks.contender import Ask

    Exchange: TypeAlias = Callable[[str], Awaitable[object]]
    """Sends a message over one socket and returns what comes back."""


def asking(exchange: Exchange) -> Ask:
    """Return what sends a short text message, never the same, and checks that it comes back."""
    numbers = count()

    async def ask() -> None:
        message = f"{next(numbers):08} Hello, world!"
        if await exchange(message) != message:
            raise RuntimeError("what came back is not what was sent")

    return ask


def taking_turns(exchanges: Sequence[Exchange], tasks: int) -> Exchange:
    """Return an exchange over one of several sockets, each of which serves one task at a time.

    Where there is a socket for each task, the next that is free is taken from a list: the cheapest way there is.
    Otherwise each has a lock, and is asked in its turn.
    """
    if tasks > len(exchanges):
        return _locked(exchanges)
    free = list(exchanges)

    async def take(message: str) -> object:
        exchange = free.pop()
        try:
            return await exchange(message)
        finally:
            free.append(exchange)

    return take


def _locked(exchanges: Sequence[Exchange]) -> Exchange:
    turns = cycle([(exchange, trio.Lock()) for exchange in exchanges])

    async def wait(message: str) -> object:
        exchange, lock = next(turns)
        async with lock:
            return await exchange(message)

    return wait
