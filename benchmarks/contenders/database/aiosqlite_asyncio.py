"""aiosqlite's connection, and aiosqlitepool over it.

What the pool does on its own account, and cannot be told not to do: it runs a SELECT 1 before each lease and a ROLLBACK
after it. Its connections are those of aiosqlite's ``connect`` without options, and there are 5, its default.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.contender import Caller, load_peer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.contender import Ask

aiosqlite = load_peer("aiosqlite")
aiosqlitepool = load_peer("aiosqlitepool")


@asynccontextmanager
async def open_pool(path: str, sql: str, readers: int | None = None) -> AsyncGenerator[Ask]:
    """Use the pool; of the default size unless ``readers`` says another."""
    size = {} if readers is None else {"pool_size": readers}
    async with aiosqlitepool.SQLiteConnectionPool(partial(aiosqlite.connect, path), **size) as pool:

        async def ask() -> None:
            async with pool.connection() as conn:
                await conn.execute_fetchall(sql)

        yield ask


@asynccontextmanager
async def open_single(path: str, sql: str) -> AsyncGenerator[Ask]:
    """Use one connection."""
    async with aiosqlite.connect(path) as conn:

        async def ask() -> None:
            await conn.execute_fetchall(sql)

        yield ask


VERSION = f"aiosqlite {aiosqlite.__version__}, aiosqlitepool {aiosqlitepool.__version__}"
CONTENDERS = {"aiosqlitepool": Caller("asyncio", open_pool), "aiosqlite": Caller("asyncio", open_single)}
