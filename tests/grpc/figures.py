"""What a test asks the kernel, the interpreter and trio about what is left."""

import gc
import sys
from pathlib import Path
from typing import Final

import psutil

PROCESS: Final = psutil.Process()


def connections(port: int) -> set[int]:
    """Return the local ports of this process's connections to ``port``."""
    every = PROCESS.net_connections("tcp")
    return {each.laddr.port for each in every if each.raddr[1:] == (port,)}


def threads() -> int:
    """Return how many threads the kernel knows, grpcio's own included."""
    return len(list(Path("/proc/self/task").iterdir()))


def memory() -> int:
    """Return the bytes of memory that are resident."""
    size: int = PROCESS.memory_info().rss
    return size


def blocks() -> int:
    """Return how many blocks of memory the interpreter's objects hold, without what only awaits collection."""
    gc.collect()
    return sys.getallocatedblocks()
