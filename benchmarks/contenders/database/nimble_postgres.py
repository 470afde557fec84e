"""This project's clients of PostgreSQL: one connection by itself, and the pool."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from benchmarks.contender import Caller, load_peer
from nimblepool_database import Database, TrioConnection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.contender import Ask


@asynccontextmanager
async def open_connection(url: str, sql: str) -> AsyncGenerator[Ask]:
    """Use one `TrioConnection`, as psycopg's own is used."""
    query = sql.encode()
    async with await TrioConnection.connect(url, autocommit=True) as conn:

        async def ask() -> None:
            await (await conn.execute(query)).fetchall()

        yield ask


@asynccontextmanager
async def open_pool(url: str, sql: str, size: int = 1) -> AsyncGenerator[Ask]:
    """Use `Database` with default options."""
    async with Database(url, max_size=size, min_size=size) as db:
        await db.pool.wait_ready(size)

        async def ask() -> None:
            await db.fetch_all(sql)

        yield ask


psycopg = load_peer("psycopg")
VERSION = f"psycopg {psycopg.__version__}, {psycopg.pq.__impl__}, libpq {psycopg.pq.version()}"
CONTENDERS = {"TrioConnection": Caller("trio", open_connection), "Database": Caller("trio", open_pool)}
