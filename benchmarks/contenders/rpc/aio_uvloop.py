"""grpc.aio, on uvloop."""

from __future__ import annotations

from benchmarks.contender import Caller, load_peer

from .aio_like import VERSION as GRPCIO
from .aio_like import open_channels

VERSION = f"{GRPCIO} on uvloop {load_peer('uvloop').__version__}"
CONTENDERS = {"grpc.aio, uvloop": Caller("uvloop", open_channels)}
