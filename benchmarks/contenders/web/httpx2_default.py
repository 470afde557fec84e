"""httpx2 with its own transport, on trio."""

from __future__ import annotations

from benchmarks.contender import load_peer

from .httpx_like import make_caller

httpx2 = load_peer("httpx2")
VERSION = f"httpx2 {httpx2.__version__}, httpcore2 {load_peer('httpcore2').__version__}"
CONTENDERS = {"httpx2": make_caller(httpx2)}
