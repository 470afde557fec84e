"""What the pool does about leases beyond lending: telling observers, timing, taking back."""

from __future__ import annotations

import logging
import traceback
import warnings
import weakref
from collections import OrderedDict, deque
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Generic, TypeVar, final

import trio

from ._acquired import AcquiredLease, OwnerWatch, has_ended
from ._check import or_no_limit
from ._errors import LeaseExpired, LeaseRevoked, LeaseTimeout, ResourceLost
from ._supervised import ObservedLease, SupervisedLease
from ._verdict import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._engine import Engine
    from ._lease import Lease
    from ._slot import Slot

R = TypeVar("R")
logger = logging.getLogger("nimblepool")


@final
class Supervision(Generic[R]):
    """The leases that are watched: how long they are held, and whether anybody still has them.

    Invariants:
        if max_hold is on, timed lists the leases that are held and not overdue, the next to be overdue first
        timed is empty if max_hold is off
    """

    def __init__(self, engine: Engine[R], max_hold: float | None) -> None:
        self._engine = engine
        self._max_hold = or_no_limit(max_hold)
        self._timed: OrderedDict[Lease[R] | weakref.ref[AcquiredLease[R]], float] = OrderedDict()
        self._owners: OwnerWatch[R] = OwnerWatch(self.report_lost)
        self._lost: deque[AcquiredLease[R]] = deque()
        self._token = trio.lowlevel.current_trio_token()

    # What leases tell

    def began(self, lease: ObservedLease[R], wait: float) -> None:
        self._time(lease)
        self._engine.audience.tell("checkout", wait)

    def ended(self, lease: ObservedLease[R], used: float, error: BaseException | None) -> None:
        self._timed.pop(lease, None)
        self._engine.audience.tell("checkin", used, error)

    def acquired(self, lease: AcquiredLease[R], wait: float) -> None:
        if lease.owner is not None:
            self._owners.add(lease.owner, lease)
        self._time(lease.ref)
        self._engine.audience.tell("checkout", wait)

    def released(self, lease: AcquiredLease[R], used: float, error: BaseException | None) -> None:
        if lease.owner is not None:
            self._owners.discard(lease.owner, lease)
        self._timed.pop(lease.ref, None)
        self._engine.audience.tell("checkin", used, error)

    def report_lost(self, lease: AcquiredLease[R]) -> None:
        """Note that nobody will release ``lease``, and rouse the keeper. May be called by the collector, anywhere."""
        self._lost.append(lease)
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._engine.rouse, idempotent=True)

    # What the keeper does

    def next_due(self) -> float:
        """Return when the next lease is overdue, or infinity."""
        return -inf if self._lost else next(iter(self._timed.values()), inf)

    def tick(self, now: float) -> None:
        """Take back what is overdue or lost."""
        while self._lost:
            self._take_back(self._lost.popleft())
        while self._timed and next(iter(self._timed.values())) <= now:
            key, _ = self._timed.popitem(last=False)
            if (lease := _lease_of(key)) is not None:
                self._cut_short(lease)

    # What the engine asks

    def holders(self) -> Iterator[Lease[R]]:
        """Yield the leases that are held, the oldest first."""
        for key in self._engine.held:
            if (lease := _lease_of(key)) is not None:
                yield lease

    def wrest_from_the_gone(self) -> None:
        """End the leases that cannot end by themselves while the pool closes: their task has ended, or closes it.

        A body that is in order ends its lease. Ctrl-C may strike between the end of the body and the lease's own.
        """
        current = trio.lowlevel.current_task()
        for lease in list(self.holders()):
            task = lease.task
            if task is not None and not isinstance(lease, AcquiredLease) and (task is current or has_ended(task)):
                lease.forfeit(self._revoked(lease), Reason.CLOSED)

    def revoke(self) -> bool:
        """Cancel the body of every lease that has one that can be cancelled; tell whether there were any."""
        supervised = [lease for lease in self.holders() if isinstance(lease, SupervisedLease)]
        for lease in supervised:
            lease.doom(self._revoked(lease), Reason.CLOSED)
        return bool(supervised)

    def close(self) -> None:
        """End the watch over owners; no lease is held any more."""
        self._owners.close()

    def wrest(self) -> None:
        """End every lease that is held."""
        for lease in list(self.holders()):
            lease.forfeit(self._revoked(lease), Reason.CLOSED)

    def cancel_on_death(self, slot: Slot[R], error: BaseException | None) -> None:
        """Cancel the bodies that use ``slot``, whose resource has died."""
        for lease in list(self.holders()):
            if lease.is_on(slot) and isinstance(lease, SupervisedLease):
                lost = ResourceLost(
                    f"pool {self._engine.name!r}: the resource died while it was leased; check out another"
                )
                lost.__cause__ = error
                lease.doom(lost, Reason.DIED)

    def _time(self, key: Lease[R] | weakref.ref[AcquiredLease[R]]) -> None:
        if self._max_hold < inf:
            due = self._engine.now() + self._max_hold
            self._timed[key] = due
            self._engine.wake_by(due)

    def _cut_short(self, lease: Lease[R]) -> None:
        where = _stack_of(lease)
        text = f"pool {self._engine.name!r}: {lease.holder} held a lease for more than max_hold ({self._max_hold:g} s)"
        logger.warning("%s; it was here:\n%s", text, where)
        self._engine.audience.tell("leak", where, lease.held_for)
        fate = LeaseTimeout(f"{text}; the resource is removed: hold it for less, or raise max_hold")
        if isinstance(lease, SupervisedLease):
            lease.doom(fate, Reason.HELD)
        else:
            lease.forfeit(fate, Reason.HELD)

    def _take_back(self, lease: AcquiredLease[R]) -> None:
        if not lease.is_held:
            return
        held_for = lease.held_for
        text = f"pool {self._engine.name!r}: a lease was never released; it was acquired at {lease.where}"
        lease.forfeit(LeaseExpired(text), Reason.ABANDONED)
        self._engine.audience.tell("leak", lease.where, held_for)
        try:
            warnings.warn(text, ResourceWarning, stacklevel=1, source=lease)
        except ResourceWarning:  # warnings are errors, and there is nobody here to raise it to
            logger.exception("a lease was never released")

    def _revoked(self, lease: Lease[R]) -> LeaseRevoked:
        text = f"pool {self._engine.name!r} closed while {lease.holder} held a lease, for {lease.held_for:.3g} s by now"
        logger.warning("%s; it is revoked", text)
        return LeaseRevoked(f"{text}: end leases before the pool closes, or raise close_grace")


def _lease_of(key: Lease[R] | weakref.ref[AcquiredLease[R]]) -> Lease[R] | None:
    return key() if isinstance(key, weakref.ref) else key


def _stack_of(lease: Lease[R]) -> str:
    if isinstance(lease, AcquiredLease):
        return f"acquired at {lease.where}"
    task = lease.task
    return "" if task is None else "".join(traceback.StackSummary.extract(task.iter_await_frames()).format())
