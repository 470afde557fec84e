"""generic-connection-pool's asyncio ConnectionPool.

Stubbed: the connection manager, which returns plain objects and whose callbacks do nothing.

Fair: callbacks are what the pool is given by every user. ``min_idle`` equals ``max_size``, so that no connection is
watched for idleness, which costs less than the default.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

from benchmarks.contender import Contender, load_peer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.contender import Client

generic = load_peer("generic_connection_pool.asyncio")


class StubManager:
    """Opens stubs; the same methods as the peer's ``BaseConnectionManager``, and as little in them."""

    async def create(self, _endpoint: str) -> object:
        """Open a stub."""
        return object()

    async def dispose(self, endpoint: str, conn: object) -> None:
        """End."""

    async def check_aliveness(self, _endpoint: str, _conn: object) -> bool:
        """Find it well."""
        return True

    async def on_acquire(self, endpoint: str, conn: object) -> None:
        """Do nothing."""

    async def on_release(self, endpoint: str, conn: object) -> None:
        """Do nothing."""

    async def on_connection_dead(self, endpoint: str, conn: object) -> None:
        """Do nothing."""


@asynccontextmanager
async def open_pool(size: int) -> AsyncGenerator[Client]:
    """Open the pool for one endpoint."""
    pool = generic.ConnectionPool(StubManager(), min_idle=size, max_size=size, total_max_size=size)

    async def client(leases: int) -> None:
        for _ in range(leases):
            async with pool.connection("endpoint"):
                await asyncio.sleep(0)

    yield client
    await pool.close()


VERSION = f"generic-connection-pool {version('generic-connection-pool')}"
CONTENDERS = {"generic-connection-pool": Contender("asyncio", open_pool)}
