"""Bare connections of `websockets`, on its own trio implementation."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.contender import Caller, load_peer

from . import asking, taking_turns

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.contender import Ask

    from . import Exchange

client = load_peer("websockets.trio.client")


@asynccontextmanager
async def open_sockets(url: str, sockets: int, tasks: int) -> AsyncGenerator[Ask]:
    """Connect."""
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(client.connect(url, proxy=None)) for _ in range(sockets)]
        yield asking(taking_turns([exchange_over(connection) for connection in connections], tasks))


def exchange_over(connection: Any) -> Exchange:  # noqa: ANN401 - the peer's own, or what behaves like it
    """Return what sends and receives, in two calls as any user of it would."""

    async def exchange(message: str) -> object:
        await connection.send(message)
        return await connection.recv()

    return exchange


VERSION = f"websockets {load_peer('websockets').__version__}"
CONTENDERS = {"websockets": Caller("trio", open_sockets)}
