"""What the gRPC benchmarks' servers and clients agree on; all messages have the same length."""

from __future__ import annotations

SERVICE, METHOD = "benchmarks.Benchmark", "Call"
REQUEST = b"Hello, server..."
RESPONSE = b"Hello, client..."
COUNT = 500
"""Messages in a stream."""
PAUSE = 0.5
"""Seconds that a slow call takes."""
STREAM_LIMIT = 100
"""Slow calls at a time on one connection."""


def counted(messages: int) -> bytes:
    """Return the response to a stream of so many requests."""
    return b"%016d" % messages
