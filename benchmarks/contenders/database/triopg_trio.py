"""triopg's connection and pool: asyncpg on trio, through trio-asyncio, whose loop it puts in place of asyncio's.

Fair: the loop is opened once, around everything, as its documentation shows.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

from benchmarks.contender import Caller, load_peer
from benchmarks.load import check_loop

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.contender import Ask

triopg = load_peer("triopg")
trio_asyncio = load_peer("trio_asyncio")


@asynccontextmanager
async def open_connection(url: str, sql: str) -> AsyncGenerator[Ask]:
    """Use one connection."""
    async with _open_loop(), triopg.connect(url) as conn:

        async def ask() -> None:
            await conn.fetch(sql)

        yield ask


@asynccontextmanager
async def open_pool(url: str, sql: str, size: int) -> AsyncGenerator[Ask]:
    """Use the pool with all its connections."""
    async with _open_loop(), triopg.create_pool(url, min_size=size, max_size=size) as pool:

        async def ask() -> None:
            await pool.fetch(sql)

        yield ask


@asynccontextmanager
async def _open_loop() -> AsyncGenerator[None]:
    async with trio_asyncio.open_loop():
        check_loop("trio_asyncio")
        yield


VERSION = f"triopg {version('triopg')}, trio-asyncio {version('trio-asyncio')}"
CONTENDERS = {"triopg": Caller("trio", open_connection), "triopg pool": Caller("trio", open_pool)}
