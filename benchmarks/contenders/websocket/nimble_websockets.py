"""This project's pools of sockets, in three ways to use them."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from benchmarks.contender import Caller, load_peer

from . import asking, taking_turns
from .websockets_trio import exchange_over

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.contender import Ask

nimble = load_peer("nimblepool_websocket")
PATIENCE = 60.0
"""Seconds that a client may wait for a socket: 1,000 begin at once."""


@asynccontextmanager
async def open_leased(url: str, sockets: int, tasks: int) -> AsyncGenerator[Ask]:
    """Lease a socket for each request."""
    del tasks
    worker = nimble.WebSocketWorker(url, proxy=None)
    async with nimble.open_websockets(worker, min_size=sockets, max_size=sockets, checkout_timeout=PATIENCE) as pools:
        await pools.pool.wait_ready(sockets)

        async def exchange(message: str) -> object:
            async with pools.connection() as ws:
                await ws.send(message)
                return await ws.recv()

        yield asking(exchange)


@asynccontextmanager
async def open_held(url: str, sockets: int, tasks: int) -> AsyncGenerator[Ask]:
    """Lease all sockets once, for the whole load, and use them as bare ones are used."""
    worker = nimble.WebSocketWorker(url, proxy=None)
    async with nimble.open_websockets(worker, max_size=sockets) as pools, AsyncExitStack() as stack:
        leased = [await stack.enter_async_context(pools.connection()) for _ in range(sockets)]
        yield asking(taking_turns([exchange_over(ws) for ws in leased], tasks))


@asynccontextmanager
async def open_shared(url: str, sockets: int, tasks: int) -> AsyncGenerator[Ask]:
    """Send all requests over one socket, whatever the others have."""
    del sockets, tasks
    worker = nimble.WebSocketWorker(url, proxy=None)
    async with nimble.open_websockets(worker, correlate=_number) as pools:
        yield asking(pools.request)


def _number(message: str) -> str:
    return message[:8]


VERSION = "this tree"
CONTENDERS = {
    "connection()": Caller("trio", open_leased),
    "connection(), held": Caller("trio", open_held),
    "request()": Caller("trio", open_shared),
}
