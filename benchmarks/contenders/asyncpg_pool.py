"""asyncpg's Pool.

Stubbed: the connection. It is a real `asyncpg.Connection` over a protocol that has no server. `is_closed` answers at
once, and `reset`, which would send a query, does nothing.

Fair: the pool is told so by its own option ``connect``, and is otherwise as it comes. What is stubbed does less than
the original.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from benchmarks.contender import Contender, load_peer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.contender import Client

asyncpg = load_peer("asyncpg")
Connection: Any = asyncpg.Connection


class StubProtocol:
    """A protocol that is connected to nothing."""

    queries_count = 0

    def get_settings(self) -> SimpleNamespace:
        """Say of which version the server would be."""
        return SimpleNamespace(server_version="17.0", crate_version=None)

    def _is_cancelling(self) -> bool:
        return False


class StubConnection(Connection):  # type: ignore[misc]  # the peer is Any, see load_peer
    """A connection that does nothing."""

    def is_closed(self) -> bool:
        """Say no."""
        return False

    async def reset(self, *, timeout: float | None = None) -> None:
        """Find nothing to reset."""

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ARG002 - the peer's signature
        """End."""
        self._protocol = None
        self._cleanup()

    def terminate(self) -> None:
        """End."""
        self._protocol = None
        self._cleanup()


async def connect(*_address: Any, loop: asyncio.AbstractEventLoop, **_options: Any) -> StubConnection:  # noqa: ANN401 - what the peer passes
    """Open a stub."""
    config = SimpleNamespace(statement_cache_size=0, max_cached_statement_lifetime=0)
    return StubConnection(StubProtocol(), None, loop, None, config, None)


@asynccontextmanager
async def open_pool(size: int) -> AsyncGenerator[Client]:
    """Open the pool with all its connections."""
    async with asyncpg.create_pool(
        min_size=size, max_size=size, connect=connect, connection_class=StubConnection
    ) as pool:

        async def client(leases: int) -> None:
            for _ in range(leases):
                async with pool.acquire():
                    await asyncio.sleep(0)

        yield client


VERSION = f"asyncpg {asyncpg.__version__}"
CONTENDERS = {"asyncpg.Pool": Contender("asyncio", open_pool)}
