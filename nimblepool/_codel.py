"""Shedding load by the time that waiters spend in the queue."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import final

from ._check import check_seconds


@final
@dataclass(frozen=True, slots=True)
class CoDel:
    """Controlled delay: refuse the waiters of a queue that does not drain, not those of a burst that does.

    When the smallest wait of a whole ``interval`` stayed above ``target``, the pool is slow; while it is slow, waiters
    that have waited longer than twice ``target`` are refused with `PoolOverloaded`.

    Args:
        target: seconds; the wait that is acceptable at all times.
        interval: seconds; how long a burst may last.

    K. Nichols and V. Jacobson, "Controlling Queue Delay", ACM Queue 10(5), 2012 (RFC 8289), in the form that Ecto's
    db_connection gave it.
    """

    target: float = 0.05
    interval: float = 2.0

    def __post_init__(self) -> None:
        check_seconds("CoDel.target", self.target, zero=False)
        check_seconds("CoDel.interval", self.interval, zero=False)


class NoShedding:
    """Shedding that is switched off."""

    next_review = inf

    def overstayed(self, wait: float, now: float, direct: int) -> bool:  # noqa: ARG002 - the interface of Shedder
        return False


@final
class Shedder(NoShedding):
    """The state of `CoDel`.

    A checkout that was served directly had a wait of 0. It is not reported one by one: the pool's count of them is
    passed along, and a count that has grown says so.
    """

    def __init__(self, options: CoDel, now: float) -> None:
        self._target = options.target
        self._interval = options.interval
        self._smallest = inf
        self._direct = 0
        self._slow = False
        self.next_review = now + options.interval

    def overstayed(self, wait: float, now: float, direct: int) -> bool:
        """Tell whether the waiter at the head, after ``wait`` seconds, is to be refused."""
        self._smallest = min(self._smallest, wait)
        if now >= self.next_review:
            self._review(wait, now, direct)
        return self._slow and wait > 2 * self._target

    def _review(self, wait: float, now: float, direct: int) -> None:
        """Judge the interval that is over.

        The keeper looks at a queue that does not move, so an interval without any look had no queue and was not slow.
        """
        unqueued = direct != self._direct or now >= self.next_review + self._interval
        self._slow = not unqueued and self._smallest > self._target
        self._smallest = wait
        self._direct = direct
        self.next_review = now + self._interval
