"""httpcore's AsyncConnectionPool; `http_stub` says how it was stubbed and why that is fair."""

from __future__ import annotations

from benchmarks.contender import load_peer

from .http_stub import make_contender

httpcore = load_peer("httpcore")

VERSION = f"httpcore {httpcore.__version__}"
CONTENDERS = {"httpcore": make_contender(httpcore)}
