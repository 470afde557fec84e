"""grpc.aio, on asyncio's own loop."""

from __future__ import annotations

from benchmarks.contender import Caller

from .aio_like import VERSION, open_channels

__all__ = ["CONTENDERS", "VERSION"]

CONTENDERS = {"grpc.aio": Caller("asyncio", open_channels)}
