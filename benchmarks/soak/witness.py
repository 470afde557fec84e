"""The observer of a round."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from nimblepool import PoolObserver

from .faults import Fault
from .promise import require

if TYPE_CHECKING:
    import random

    from nimblepool import PoolStats, Reason


class Witness(PoolObserver):
    """Keeps books of its own, of what the pool says that happens."""

    def __init__(self, rng: random.Random) -> None:
        self.seen: Counter[str] = Counter()
        self._gives_up_after = rng.choice([math.inf, math.inf, 300])

    @property
    def is_reliable(self) -> bool:
        """Whether it has heard everything: one that raises is dropped."""
        return self.seen.total() < self._gives_up_after

    def checkout(self, pool: str, wait: float) -> None:  # noqa: ARG002
        """Count."""
        self._see("checkout", wait)

    def checkin(self, pool: str, used: float, error: BaseException | None) -> None:  # noqa: ARG002
        """Count."""
        self._see("checkin", used)

    def open(self, pool: str, took: float) -> None:  # noqa: ARG002
        """Count."""
        self._see("open", took)

    def open_failed(self, pool: str, error: BaseException, took: float) -> None:  # noqa: ARG002
        """Count."""
        self._see("open_failed", took)

    def close(self, pool: str, reason: Reason, age: float) -> None:  # noqa: ARG002
        """Count."""
        self._see("close", age)

    def timeout(self, pool: str, wait: float) -> None:  # noqa: ARG002
        """Count."""
        self._see("timeout", wait)

    def shed(self, pool: str, wait: float) -> None:  # noqa: ARG002
        """Count."""
        self._see("shed", wait)

    def cancelled(self, pool: str, wait: float) -> None:  # noqa: ARG002
        """Count."""
        self._see("cancelled", wait)

    def testify(self, stats: PoolStats) -> None:
        """Raise `ViolationError` unless the closed pool's books say the same."""
        if not self.is_reliable:
            return
        for event, booked in (
            ("checkout", stats.direct + stats.waited),
            ("checkin", stats.direct + stats.waited),
            ("open", stats.opened),
            ("open_failed", stats.open_failures),
            ("close", stats.closed),
            ("timeout", stats.timed_out),
            ("shed", stats.shed),
            ("cancelled", stats.cancelled),
        ):
            require(self.seen[event] == booked, f"observers saw {self.seen[event]} x {event}, the books say {booked}")

    def _see(self, event: str, seconds: float) -> None:
        require(seconds >= 0.0, f"{event} took {seconds} s")
        self.seen[event] += 1
        if not self.is_reliable:
            raise Fault("an observer that raises")
