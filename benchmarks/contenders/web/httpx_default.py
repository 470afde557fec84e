"""httpx with its own transport, on trio."""

from __future__ import annotations

from benchmarks.contender import load_peer

from .httpx_like import make_caller

httpx = load_peer("httpx")
VERSION = f"httpx {httpx.__version__}, httpcore {load_peer('httpcore').__version__}"
CONTENDERS = {"httpx": make_caller(httpx)}
