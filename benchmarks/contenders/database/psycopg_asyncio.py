"""psycopg's own asynchronous connection, and psycopg_pool.

Fair: its connections are in autocommit mode, as ours are; by default each lease would cost a BEGIN and a COMMIT more.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from benchmarks.contender import Caller, load_peer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.contender import Ask

psycopg = load_peer("psycopg")
psycopg_pool = load_peer("psycopg_pool")


@asynccontextmanager
async def open_connection(url: str, sql: str) -> AsyncGenerator[Ask]:
    """Use one connection."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:

        async def ask() -> None:
            await (await conn.execute(sql)).fetchall()

        yield ask


@asynccontextmanager
async def open_pool(url: str, sql: str, size: int) -> AsyncGenerator[Ask]:
    """Use the pool with all its connections."""
    async with psycopg_pool.AsyncConnectionPool(
        url, min_size=size, max_size=size, kwargs={"autocommit": True}, open=False
    ) as pool:
        await pool.wait()

        async def ask() -> None:
            async with pool.connection() as conn:
                await (await conn.execute(sql)).fetchall()

        yield ask


VERSION = f"psycopg_pool {psycopg_pool.__version__}"
CONTENDERS = {"psycopg": Caller("asyncio", open_connection), "psycopg_pool": Caller("asyncio", open_pool)}
