"""aiosqlitepool's SQLiteConnectionPool.

Stubbed: the connection, whose ``execute`` (the pool's health check), ``rollback`` and ``close`` do nothing.

Fair: the pool is made for any connection with these three methods. That it checks the health of each connection it
lends, and rolls it back afterwards, is its own decision and cannot be switched off; here both cost only the call.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from benchmarks.contender import Contender, load_peer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.contender import Client

aiosqlitepool = load_peer("aiosqlitepool")


class StubConnection:
    """A connection that does nothing."""

    async def execute(self, statement: str) -> None:
        """Do nothing."""

    async def rollback(self) -> None:
        """Find nothing to undo."""

    async def close(self) -> None:
        """End."""


async def connect() -> StubConnection:
    """Open a stub."""
    return StubConnection()


@asynccontextmanager
async def open_pool(size: int) -> AsyncGenerator[Client]:
    """Open the pool."""
    async with aiosqlitepool.SQLiteConnectionPool(connect, pool_size=size) as pool:

        async def client(leases: int) -> None:
            for _ in range(leases):
                async with pool.connection():
                    await asyncio.sleep(0)

        yield client


VERSION = f"aiosqlitepool {aiosqlitepool.__version__}"
CONTENDERS = {"aiosqlitepool": Contender("asyncio", open_pool)}
