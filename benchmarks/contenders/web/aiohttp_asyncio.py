"""aiohttp's client, on asyncio's own loop. It speaks HTTP/1.1 only, and parses it in C."""

from __future__ import annotations

from contextlib import asynccontextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Any

from benchmarks.contender import Caller, load_peer

from . import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.contender import Ask

aiohttp = load_peer("aiohttp")


@asynccontextmanager
async def open_session(urls: list[str], connections: int | None = None) -> AsyncGenerator[Ask]:
    """Open a session."""
    options: dict[str, Any] = {}
    if connections is not None:
        connector = aiohttp.TCPConnector(limit=connections, keepalive_timeout=PATIENCE)
        options = {"connector": connector, "timeout": aiohttp.ClientTimeout(total=PATIENCE)}
    async with aiohttp.ClientSession(**options) as session:
        turns = cycle(urls)

        async def ask() -> None:
            async with session.get(next(turns)) as response:
                await response.read()
                if response.status != 204:  # noqa: PLR2004 - the server's only answer
                    raise RuntimeError(str(response.status))

        yield ask


VERSION = f"aiohttp {aiohttp.__version__}"
CONTENDERS = {"aiohttp": Caller("asyncio", open_session)}
