"""httpcore2's AsyncConnectionPool; `http_stub` says how it was stubbed and why that is fair."""

from __future__ import annotations

from benchmarks.contender import load_peer

from .http_stub import make_contender

httpcore2 = load_peer("httpcore2")

VERSION = f"httpcore2 {httpcore2.__version__}"
CONTENDERS = {"httpcore2": make_contender(httpcore2)}
