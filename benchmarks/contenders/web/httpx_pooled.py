"""httpx over this project's transport."""

from __future__ import annotations

from benchmarks.contender import load_peer

from .httpx_like import make_caller

VERSION = "this tree"
CONTENDERS = {"PooledTransport, httpx": make_caller(load_peer("httpx"), load_peer("nimblepool_http").PooledTransport)}
