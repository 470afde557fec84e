"""This project's client of SQLite: as it comes, and with the check that aiosqlitepool makes for each lease."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from benchmarks.contender import Caller
from nimblepool_database import Database

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.contender import Ask


@asynccontextmanager
async def open_pool(path: str, sql: str) -> AsyncGenerator[Ask]:
    """Use `Database` with default options."""
    async with Database(f"sqlite:///{path}") as db:

        async def ask() -> None:
            await db.fetch_all(sql)

        yield ask


@asynccontextmanager
async def open_checked(path: str, sql: str, readers: int) -> AsyncGenerator[Ask]:
    """Use as many readers as the other pool has connections, and ask each one whether it is well before its use."""
    async with Database(f"sqlite:///{path}", max_size=readers + 1) as db:

        async def ask() -> None:
            async with db.connection() as conn:
                await conn.fetch_one("SELECT 1")
                await conn.fetch_all(sql)

        yield ask


@asynccontextmanager
async def open_single(path: str, sql: str) -> AsyncGenerator[Ask]:
    """Use one connection, leased throughout."""
    async with Database(f"sqlite:///{path}", max_size=1) as db, db.connection() as conn:

        async def ask() -> None:
            await conn.fetch_all(sql)

        yield ask


VERSION = "this tree"
CONTENDERS = {
    "Database": Caller("trio", open_pool),
    "Database, checking": Caller("trio", open_checked),
    "one Connection": Caller("trio", open_single),
}
