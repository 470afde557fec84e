"""redis-py's BlockingConnectionPool.

Stubbed: the connection class. It is always connected and never has unread data; the original asks its socket.

Fair: the pool is told so by its own option ``connection_class``, and is otherwise as it comes. What is stubbed does
less than the original. The pool has no block of its own, so that the client writes ``try``.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.contender import Contender, load_peer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.contender import Client

redis = load_peer("redis")
redis_asyncio = load_peer("redis.asyncio")


class StubConnection:
    """A connection that does nothing."""

    def __init__(self, **_options: Any) -> None:  # noqa: ANN401 - what the peer passes
        pass

    async def connect(self) -> None:
        """Be connected already."""

    async def disconnect(self) -> None:
        """End."""

    async def can_read(self) -> bool:
        """Have no unread data."""
        return False

    async def re_auth(self) -> None:
        """Have no new token."""

    def should_reconnect(self) -> bool:
        """Stay."""
        return False


@asynccontextmanager
async def open_pool(size: int) -> AsyncGenerator[Client]:
    """Open the pool."""
    async with redis_asyncio.BlockingConnectionPool(max_connections=size, connection_class=StubConnection) as pool:

        async def client(leases: int) -> None:
            for _ in range(leases):
                connection = await pool.get_connection()
                try:
                    await asyncio.sleep(0)
                finally:
                    await pool.release(connection)

        yield client


VERSION = f"redis {redis.__version__}"
CONTENDERS = {"redis-py BlockingConnectionPool": Contender("asyncio", open_pool)}
