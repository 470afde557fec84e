"""grpc.aio's channels, on either of the loops that it runs on."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from benchmarks.contender import load_peer

from . import asking

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.contender import Ask

aio = load_peer("grpc.aio")
VERSION = f"grpcio {load_peer('grpc').__version__}"
OPTIONS = [("grpc.use_local_subchannel_pool", 1)]
"""Otherwise channels to one server share a connection."""


@asynccontextmanager
async def open_channels(target: str, way: str, channels: int | None = None) -> AsyncGenerator[Ask]:
    """Open so many channels, one by default: all that its user gets without writing more than a stub needs."""
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(aio.insecure_channel(target, options=OPTIONS))
            for _ in range(1 if channels is None else channels)
        ]
        yield asking(opened, way)
