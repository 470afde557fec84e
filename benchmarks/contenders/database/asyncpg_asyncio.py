"""asyncpg's connection and pool, on asyncio's own loop.

What it does on its own account: it speaks the binary protocol and prepares at the first use; its pool resets each
connection that comes back by another query.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from benchmarks.contender import Caller, load_peer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.contender import Ask

asyncpg = load_peer("asyncpg")


@asynccontextmanager
async def open_connection(url: str, sql: str) -> AsyncGenerator[Ask]:
    """Use one connection."""
    conn = await asyncpg.connect(url)

    async def ask() -> None:
        await conn.fetch(sql)

    yield ask
    await conn.close()


@asynccontextmanager
async def open_pool(url: str, sql: str, size: int) -> AsyncGenerator[Ask]:
    """Use the pool with all its connections."""
    async with asyncpg.create_pool(url, min_size=size, max_size=size) as pool:

        async def ask() -> None:
            await pool.fetch(sql)

        yield ask


VERSION = f"asyncpg {asyncpg.__version__}"
CONTENDERS = {"asyncpg": Caller("asyncio", open_connection), "asyncpg.Pool": Caller("asyncio", open_pool)}
