"""asyncio's own step, without any pool: what every loop over an asyncio peer contains."""

from __future__ import annotations

import asyncio
import platform
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from benchmarks.contender import Contender

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.contender import Client


@asynccontextmanager
async def open_nothing(_size: int) -> AsyncGenerator[Client]:
    """Only the step during which the peers' clients hold a resource."""

    async def client(leases: int) -> None:
        for _ in range(leases):
            await asyncio.sleep(0)

    yield client


VERSION = f"asyncio of Python {platform.python_version()}"
CONTENDERS = {"asyncio's sleep(0) alone": Contender("asyncio", open_nothing)}
