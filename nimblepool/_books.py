"""The books: what became of every checkout."""

from __future__ import annotations

from typing import final

from ._verdict import Skip
from ._waiter import Refusal


@final
class Books:
    """Counters. A checkout is entered when it begins, and once more when it is settled.

    Invariant: started = direct + waited + timed_out + shed + cancelled + refused + failed + the waiters in the queue
    """

    __slots__ = (
        "cancelled",
        "direct",
        "failed",
        "longest_wait",
        "open_failures",
        "refused",
        "shed",
        "started",
        "timed_out",
        "waited",
    )

    def __init__(self) -> None:
        self.started = 0
        self.direct = 0
        self.waited = 0
        self.timed_out = 0
        self.shed = 0
        self.cancelled = 0
        self.refused = 0
        self.failed = 0
        self.longest_wait = 0.0
        self.open_failures = 0

    def settled(self) -> int:
        """Return how many checkouts have come to an end of their waiting."""
        served = self.direct + self.waited
        return served + self.timed_out + self.shed + self.cancelled + self.refused + self.failed

    def enter_wait(self, wait: float) -> None:
        """Enter a checkout that was served after ``wait`` seconds."""
        self.waited += 1
        if wait > self.longest_wait:  # noqa: PLR1730 - max() costs as much as the rest
            self.longest_wait = wait

    def enter_refusal(self, outcome: Refusal | BaseException) -> None:
        """Enter a checkout that got no lease."""
        match outcome:
            case Refusal.TIMED_OUT:
                self.timed_out += 1
            case Refusal.FULL | Refusal.SHED:
                self.shed += 1
            case Refusal.CLOSED | Refusal.NOTHING_IDLE | Skip():
                self.refused += 1
            case _:
                self.failed += 1
