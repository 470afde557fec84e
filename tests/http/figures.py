"""What a test asks a transport, and the kernel, about connections."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING

from tests.http.servers.listening import until

if TYPE_CHECKING:
    from tests.http.pairs import Transport


def total(transport: Transport, field: str) -> int:
    """Return a figure of all origins together."""
    return sum(getattr(stats, field) for stats in transport.stats.values())


def leases(transport: Transport) -> int:
    return total(transport, "leases")


async def until_unleased(transport: Transport) -> None:
    """Wait until no lease is out; one that the collector ended takes the pool a moment."""
    await until(lambda: not leases(transport))


def check_books(transport: Transport) -> None:
    """Assert that the books of every origin balance."""
    for origin, stats in transport.stats.items():
        assert stats.balanced, f"{origin}: {stats}"


def sockets() -> int:
    """Return how many sockets this process has open."""
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            count += str(link.readlink()).startswith("socket:")
        except OSError:  # the directory itself, closed meanwhile
            continue
    return count


def collect() -> None:
    """Let the collector take what nobody holds."""
    for _ in range(2):
        gc.collect()


def causes(error: BaseException) -> str:
    """Return what the error and its causes say: httpcore's errors on trio have no text of their own."""
    texts = []
    cause: BaseException | None = error
    while cause is not None:
        texts.append(f"{type(cause).__name__}: {cause}")
        cause = cause.__cause__ or cause.__context__
    return "\n".join(texts)
