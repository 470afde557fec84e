"""This project's pool of channels, on trio."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from benchmarks.contender import Caller, load_peer

from . import asking

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.contender import Ask

nimble = load_peer("nimblepool_grpc")


@asynccontextmanager
async def open_pooled(target: str, way: str, channels: int | None = None) -> AsyncGenerator[Ask]:
    """Open a pool of at most so many channels, by default as many as it has by default."""
    options = {} if channels is None else {"channels": channels}
    async with nimble.PooledChannel(target, **options) as channel:
        yield asking([channel], way)


VERSION = "this tree"
CONTENDERS = {"PooledChannel": Caller("trio", open_pooled)}
