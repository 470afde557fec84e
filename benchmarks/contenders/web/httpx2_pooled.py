"""httpx2 over this project's transport."""

from __future__ import annotations

from benchmarks.contender import load_peer

from .httpx_like import make_caller

VERSION = "this tree"
CONTENDERS = {
    "PooledTransport, httpx2": make_caller(load_peer("httpx2"), load_peer("nimblepool_http.httpx2").PooledTransport)
}
