"""A reading of the pool's state and books."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar, final

if TYPE_CHECKING:
    from ._breaker import BreakerState
    from ._engine import Engine

R = TypeVar("R")

_ATTEMPTS = 100

PoolStatus = Literal["open", "paused", "draining", "closing", "closed"]
"""What a pool does: it lends; lets everybody wait; serves the last ones; waits for leases and resources; nothing."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStats:
    """One reading, taken without disturbing the pool.

    These hold in every reading::

        size = idle + leased + opening + checking
        started = direct + waited + timed_out + shed + cancelled + refused + failed + waiting
        opened = closed + closing + (size - opening)
    """

    name: str
    status: PoolStatus
    min_size: int
    max_size: int
    size: int
    """Resources that are open or opening; those that are closing do not count."""
    idle: int
    """Resources that nobody uses."""
    leased: int
    """Resources with one lease or more."""
    opening: int
    """Resources whose ``init`` is running."""
    checking: int
    """Resources whose ``ping`` or ``reset`` is running."""
    closing: int
    """Resources whose ``terminate`` is running."""
    leases: int
    """Leases that are out; more than ``leased`` when resources are shared."""
    waiting: int
    """Checkouts in the queue."""
    oldest_wait: float
    """Seconds that the first of the queue has waited; 0.0 when nobody waits."""
    longest_wait: float
    """The longest wait, in seconds, of a checkout that was served."""
    breaker: BreakerState
    """``"closed"`` when all is well, and also when there is none (``breaker=None``)."""
    started: int
    """Checkouts that were begun."""
    direct: int
    """Checkouts served without queueing."""
    waited: int
    """Checkouts served from the queue."""
    timed_out: int
    """Checkouts that got `CheckoutTimeout`."""
    shed: int
    """Checkouts that got `PoolOverloaded`."""
    cancelled: int
    """Checkouts cancelled in the queue."""
    refused: int
    """Checkouts that got `PoolClosed` or `NoneIdle`, or an error of the worker's ``enqueue`` or ``Skip``."""
    failed: int
    """Checkouts that got `PoolUnavailable`, or an error of the worker's ``checkout``."""
    opened: int
    """Times that ``init`` returned a resource."""
    open_failures: int
    """Times that ``init`` raised or ran out of time. Resources that were lost before their first use count as failures
    for back-off and breaker, but not here: they are ``opened`` and ``lost``."""
    closed: int
    """Resources whose ``terminate`` has ended."""
    lost: int
    """Resources that were closed because they were dead, broken or left dirty, and not in the order of things."""

    @property
    def balanced(self) -> bool:
        """Whether the books balance: every checkout and every resource is accounted for once."""
        outcomes = self.direct + self.waited + self.timed_out + self.shed + self.cancelled + self.refused + self.failed
        return (
            self.started == outcomes + self.waiting
            and self.opened == self.closed + self.closing + self.size - self.opening
            and self.leased >= 0
        )


def read_stats(engine: Engine[R], *, foreign: bool) -> PoolStats:
    """Read the figures; O(1).

    The pool's own thread never sees it between two states. A ``foreign`` thread may, for the interpreter can switch
    threads within an event: then the books do not balance, and it reads again.
    """
    for _ in range(_ATTEMPTS if foreign else 0):
        try:
            stats = _read_once(engine)
        except RuntimeError:  # the queue or the rack changed while it was looked at
            continue
        if stats.balanced:
            return stats
        time.sleep(0)
    return _read_once(engine)


def _read_once(engine: Engine[R]) -> PoolStats:
    state = engine.state
    now = engine.now()
    fleet = state.fleet
    books = state.books
    size = len(fleet.slots)
    idle = fleet.idle
    oldest = next(iter(state.queue), None)
    return PoolStats(
        name=engine.name,
        status=engine.status,
        min_size=state.sizing.min_size,
        max_size=state.sizing.max_size,
        size=size,
        idle=idle,
        leased=size - idle - fleet.opening - fleet.pinging - fleet.resetting,
        opening=fleet.opening,
        checking=fleet.pinging + fleet.resetting,
        closing=fleet.closing,
        leases=len(engine.held),
        waiting=len(state.queue),
        oldest_wait=0.0 if oldest is None else max(0.0, now - oldest.since),
        longest_wait=books.longest_wait,
        breaker=state.supply.breaker(now),
        started=books.started,
        direct=books.direct,
        waited=books.waited,
        timed_out=books.timed_out,
        shed=books.shed,
        cancelled=books.cancelled,
        refused=books.refused,
        failed=books.failed,
        opened=fleet.opened,
        open_failures=books.open_failures,
        closed=fleet.closed,
        lost=fleet.lost,
    )
