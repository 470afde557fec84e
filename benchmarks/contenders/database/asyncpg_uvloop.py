"""asyncpg's connection and pool, on uvloop."""

from __future__ import annotations

from benchmarks.contender import Caller, load_peer

from .asyncpg_asyncio import open_connection, open_pool

VERSION = f"uvloop {load_peer('uvloop').__version__}"
CONTENDERS = {
    "asyncpg on uvloop": Caller("uvloop", open_connection),
    "asyncpg.Pool on uvloop": Caller("uvloop", open_pool),
}
