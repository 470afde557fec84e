"""SQLAlchemy's AsyncAdaptedQueuePool.

Stubbed: the DBAPI connection, whose ``rollback`` and ``close`` do nothing.

Fair: the pool has no options but its size, and no overflow. It must run inside a greenlet. SQLAlchemy's engine starts
one for each call, and so does the contender "by call"; the other one starts one for its whole loop. That costs less
than what users of the engine get, and is the one that the budgets look at.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from benchmarks.contender import Contender, load_peer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.contender import Client

sqlalchemy = load_peer("sqlalchemy")
util = load_peer("sqlalchemy.util")
AsyncAdaptedQueuePool = load_peer("sqlalchemy.pool").AsyncAdaptedQueuePool


class StubConnection:
    """A connection that does nothing."""

    def rollback(self) -> None:
        """Find nothing to undo."""

    def close(self) -> None:
        """End."""


@asynccontextmanager
async def open_by_call(size: int) -> AsyncGenerator[Client]:
    """Open the pool; each call runs in a greenlet of its own."""
    pool = AsyncAdaptedQueuePool(StubConnection, pool_size=size, max_overflow=0)
    spawn = util.greenlet_spawn

    async def client(leases: int) -> None:
        for _ in range(leases):
            connection = await spawn(pool.connect)
            try:
                await asyncio.sleep(0)
            finally:
                await spawn(connection.close)

    yield client
    await spawn(pool.dispose)


@asynccontextmanager
async def open_pool(size: int) -> AsyncGenerator[Client]:
    """Open the pool; each client runs in one greenlet."""
    pool = AsyncAdaptedQueuePool(StubConnection, pool_size=size, max_overflow=0)
    await_only = util.await_only

    def loop(leases: int) -> None:
        for _ in range(leases):
            connection = pool.connect()
            try:
                await_only(asyncio.sleep(0))
            finally:
                connection.close()

    async def client(leases: int) -> None:
        await util.greenlet_spawn(loop, leases)

    yield client
    await util.greenlet_spawn(pool.dispose)


VERSION = f"SQLAlchemy {sqlalchemy.__version__}"
CONTENDERS = {
    "SQLAlchemy AsyncAdaptedQueuePool": Contender("asyncio", open_pool),
    "SQLAlchemy, by call": Contender("asyncio", open_by_call),
}
