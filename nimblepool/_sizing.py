"""How many resources there should be, and whether one may be opened now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, final

if TYPE_CHECKING:
    from ._fleet import Fleet
    from ._options import Settings
    from ._supply import Supply
    from ._waiter import WaitQueue

R = TypeVar("R")


@final
class Sizing(Generic[R]):
    """The limits of the pool against what its fleet has and its queue needs.

    Invariants:
        0 <= min_size <= max_size
        the fleet grows only through `open_more`, and only while it is smaller than max_size
    """

    def __init__(self, settings: Settings, fleet: Fleet[R], queue: WaitQueue[R], supply: Supply) -> None:
        self.min_size = settings.min_size
        self.max_size = settings.max_size
        self.warm = 0
        """How many resources ``wait_ready`` asks for."""
        self.paused = False
        """Waiters are not served."""
        self.shut = False
        """Nobody new is let in (draining, closing or closed)."""
        self._to_each_his_own = settings.on_open_failure == "each"
        """Clients need not wait because openings for others have failed."""
        self._fleet = fleet
        self._queue = queue
        self._supply = supply

    @property
    def least_size(self) -> int:
        """How many resources are kept open without being asked for."""
        return max(self.min_size, self.warm)

    def open_more(self, now: float) -> bool:
        """Start to open what the waiters and ``min_size`` need, within every limit; tell whether there was anything."""
        opened = False
        while self.would_open(now) and self._fleet.open_one():
            opened = True
        return opened

    def would_open(self, now: float) -> bool:
        """Tell whether a resource is needed and may be opened at once, if there is room for it in the quota."""
        return self.wants_more() and self._fleet.opening < self._allowance(now)

    def wants_more(self) -> bool:
        """Tell whether waiters or ``min_size`` need another resource, and ``max_size`` allows it."""
        fleet = self._fleet
        if fleet.size >= self.max_size or (self.shut and not self._queue):
            return False
        if len(fleet.slots) < self.least_size:
            return True
        return not self.paused and len(self._queue) > self._coming(fleet.coming_open)

    def is_hopeless(self, now: float) -> bool:
        """Tell whether a waiter has nothing to wait for: no resource lives or is opening, and the breaker is open."""
        if self._to_each_his_own and not self._supply.lost_at_birth:
            return False
        return self._fleet.living == 0 and self._fleet.opening == 0 and self._supply.breaker(now) == "open"

    def served_soon(self) -> float:
        """Return how many waiters need not wait for a lease to end, because something is or can be opened for them."""
        return self._coming(self._fleet.coming_open + max(0, self.max_size - self._fleet.size))

    def unprovided(self) -> float:
        """Return how many waiters nothing is on its way for; none while they are not served."""
        return 0 if self.paused else len(self._queue) - self._coming(self._fleet.coming_open)

    def _allowance(self, now: float) -> float:
        """Return how many resources may be opening at ``now``."""
        if self._to_each_his_own and not self._supply.lost_at_birth and self.unprovided() > 0:
            return self._supply.max_opening
        return self._supply.allowance(now)

    def _coming(self, openings: int) -> float:
        """Return how many leases so many openings, and the pings and resets under way, will make room for."""
        return self._fleet.coming_back + (openings * self._supply.leases_each if openings else 0)
