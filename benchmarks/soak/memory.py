"""The memory of this process."""

from __future__ import annotations

import sys
from mmap import PAGESIZE
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

MEGABYTE = 2**20
GROWTH = 32 * MEGABYTE
"""So much may the memory grow after the first tenth: the collector is late at times, but a leak is larger."""


class Memory:
    """The resident memory at the start, after the first tenth, and now; in bytes."""

    def __init__(self) -> None:
        self.start = self.tenth = self.now = resident()
        self._share = 0.0

    def measure(self, share: float) -> None:
        """Read it, when ``share`` of the operations are done."""
        self.now = resident()
        if self._share < 0.1:  # noqa: PLR2004 - a tenth
            self.tenth = self.now
        self._share = share

    def complaint(self) -> str | None:
        """Say so if it grew."""
        grown = self.now - self.tenth
        return f"the memory grew by {grown // MEGABYTE} MB" if grown > GROWTH else None

    def __str__(self) -> str:
        start, tenth, now = (size / MEGABYTE for size in (self.start, self.tenth, self.now))
        return f"resident memory: {start:.1f} MB at the start, {tenth:.1f} MB after a tenth, {now:.1f} MB at the end"


def resident() -> int:
    """Return the resident memory, in bytes; the highest it was, where the system tells no other."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * PAGESIZE
    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
