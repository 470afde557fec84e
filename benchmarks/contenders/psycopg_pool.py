"""psycopg_pool's AsyncConnectionPool.

Stubbed: the connection class. Its transaction is always idle, so that the pool has nothing to roll back, and leaving
its block, which would commit, does nothing.

Fair: the pool is told so by its own option ``connection_class``, and is otherwise as it comes. What is stubbed does
less than the original.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

from benchmarks.contender import Contender, load_peer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.contender import Client

psycopg_pool = load_peer("psycopg_pool")
IDLE = load_peer("psycopg.pq").TransactionStatus.IDLE


class StubConnection:
    """A connection that does nothing."""

    def __init__(self) -> None:
        self.pgconn = SimpleNamespace(transaction_status=IDLE)

    @classmethod
    async def connect(cls, _conninfo: str, **_options: Any) -> Self:  # noqa: ANN401 - what the peer passes
        """Open a stub."""
        return cls()

    async def close(self) -> None:
        """End."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        pass


@asynccontextmanager
async def open_pool(size: int) -> AsyncGenerator[Client]:
    """Open the pool with all its connections."""
    pool = psycopg_pool.AsyncConnectionPool(connection_class=StubConnection, min_size=size, max_size=size, open=False)
    await pool.open(wait=True)

    async def client(leases: int) -> None:
        for _ in range(leases):
            async with pool.connection():
                await asyncio.sleep(0)

    yield client
    await pool.close()


VERSION = f"psycopg_pool {psycopg_pool.__version__}"
CONTENDERS = {"psycopg_pool": Contender("asyncio", open_pool)}
