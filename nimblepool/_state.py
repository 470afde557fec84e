"""The pure part of the pool: it decides, and neither waits nor does I/O.

Every method is one event. It takes the time as an argument, changes slots and queue at once, and leaves what is to be
*done* in ``outbox``, which the shell empties after each event: the waiters that were settled, the callbacks to start or
stop. ``alarm`` is the time at which the shell must call ``tick``.

What each event may do to a slot is the table in `_slot`. Where a slot goes that has come free is decided in one place,
`PoolState._route`.

It is one class, longer than the others: every event may free a slot, a free slot goes to a waiter, and what a waiter
needs may open or close slots. Whatever does not take part in that round (counting, sizes, back-off, due times, who is
next) stands in a module of its own.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Generic, TypeVar, final

from ._books import Books
from ._check import or_no_limit
from ._codel import NoShedding, Shedder
from ._errors import PoolError
from ._fleet import Fleet, Job
from ._quota import Quota
from ._sizing import Sizing
from ._slot import IDLE, LEASED, Slot, SlotState
from ._supply import Supply
from ._upkeep import Upkeep
from ._verdict import OK, UNHEALTHY, Reason, Skip, Verdict
from ._waiter import Refusal, Waiter, WaitQueue

if TYPE_CHECKING:
    from random import Random

    from ._hooks import Hooks
    from ._options import Settings

R = TypeVar("R")

_DEATHS = frozenset({Reason.DIED, Reason.PING, Reason.RESET})


@final
class PoolState(Generic[R]):
    """Slots, queue and books of one pool.

    Invariants, after every event:
        no pending waiter beside a slot that can be lent, unless the pool is paused, or a slot is being pinged or reset
            for each waiter
        alarm <= next_due()
    """

    def __init__(
        self, settings: Settings, hooks: Hooks[R], *, rng: Random, now: float, quota: Quota | None = None
    ) -> None:
        self._hooks = hooks
        self._shared = hooks.shared
        self._waits_on_failure = settings.on_open_failure == "wait"
        self._max_waiting = or_no_limit(settings.max_waiting)
        self._may_refuse = settings.max_waiting is not None
        self._max_uses = or_no_limit(settings.max_uses)
        self._ping_after = or_no_limit(settings.ping_after)
        self._max_idle = or_no_limit(settings.max_idle)
        self._fresh_for = min(self._ping_after, self._max_idle)
        """What has been idle no longer than this is lent without a second look."""
        self._infancy = settings.backoff.base
        self._quota = Quota() if quota is None else quota

        self.books = Books()
        self.fleet: Fleet[R] = Fleet(settings, shared=hooks.shared, quota=self._quota)
        self.queue: WaitQueue[R] = WaitQueue(or_no_limit(settings.checkout_timeout))
        self.supply = Supply(
            max_opening=or_no_limit(settings.max_opening),
            backoff=settings.backoff,
            breaker=settings.breaker,
            shared=hooks.shared,
            rng=rng,
        )
        self.sizing: Sizing[R] = Sizing(settings, self.fleet, self.queue, self.supply)
        self._rack = self.fleet.rack
        self._upkeep: Upkeep[R] = Upkeep(settings, self._rack, rng)
        self._watches_idle = self._upkeep.patience < inf or self._quota.limited
        self._shedder = NoShedding() if settings.shedding is None else Shedder(settings.shedding, now)
        self._sheds = settings.shedding is not None
        self._line = self.queue.line
        self._lends_at_sight = not hooks.judges_checkout and self._fresh_for == inf
        """Nothing but its age can keep a slot in the rack from being lent."""
        self._takes_back_at_sight = not self._shared and not self._quota.limited
        """Nothing but a verdict or a doom can keep a slot that is given back from being lent on."""
        self._newborn: Slot[R] | None = None
        """The slot whose opening is being dealt with."""
        self._halted = False
        """Paused or shut: nothing is lent without queueing."""
        self.outbox = self.fleet.outbox
        self.alarm = inf

    # What clients do

    def lend_now(self, waiter: Waiter[R], now: float) -> bool:
        """Lend a slot to ``waiter``, which is not in the queue, if one is free and nobody is overtaken.

        Raises:
            BaseException: what the worker's ``checkout`` raised, or put in its ``Skip``.
        """
        if self._halted or self._line:
            return False
        while (slot := self._rack.take()) is not None:
            try:
                approved = (self._lends_at_sight and now < slot.expires_at) or self._approve(slot, waiter.request, now)
            except Skip as skip:
                self.refuse_now(skip)
                self._rack.put_back(slot)
                raise skip.error from None
            except BaseException as error:
                self.refuse_now(error)
                self.retire(slot, Reason.FAILED, now)
                raise
            if approved:
                self.books.started += 1
                self.books.direct += 1
                if self._lend(slot, waiter, now):
                    self._rack.put(slot)
                return True
            if slot.state in {SlotState.PINGING, SlotState.RESETTING}:  # and then it is the client's
                return False
        return False

    def can_lend(self) -> bool:
        """Tell whether something is idle and nobody waits for it; the worker may yet say no."""
        return not self._halted and not self._line and self._rack.can_lend()

    def refuse_now(self, outcome: Refusal | BaseException) -> None:
        """Enter a client that got nothing, and did not queue, in the books."""
        self.books.started += 1
        self.books.enter_refusal(outcome)

    def enqueue(self, waiter: Waiter[R], now: float) -> None:
        """Queue a client that found nothing free, or settle it with a refusal.

        Raises:
            BaseException: what the worker's ``enqueue`` raised.
        """
        self.books.started += 1
        if self._halted or self._may_refuse or self.supply.failures:
            refusal = self._refusal_of(now)
            if refusal is not None:
                waiter.since, waiter.pending = now, False
                self._refuse(waiter, refusal)
                return
        if self._hooks.rewrites:
            try:
                waiter.request = self._hooks.enqueue(waiter.request)
            except BaseException:
                self.books.refused += 1
                raise
        self.queue.push(waiter, now)
        fleet = self.fleet
        if fleet.coming_pings or fleet.coming_resets:
            self._serve(now)
        if len(fleet.slots) < self.sizing.max_size:
            self.open_more(now)
        due = waiter.deadline
        if due <= now or due < self.alarm or self._shedder.next_review < self.alarm:
            self._heed_deadline(waiter, now)

    def _heed_deadline(self, waiter: Waiter[R], now: float) -> None:
        if waiter.deadline <= now and waiter.pending:
            self._refuse(waiter, Refusal.TIMED_OUT)
        else:
            self._wake_by(min(waiter.deadline, self._shedder.next_review))

    def _refusal_of(self, now: float) -> Refusal | None:
        """Return why a newcomer may not queue."""
        if self.sizing.shut:
            return Refusal.CLOSED
        if self._may_refuse and len(self.queue) >= self._max_waiting + self.sizing.served_soon():
            return Refusal.FULL
        if self.supply.failures and self.sizing.is_hopeless(now):
            return Refusal.UNAVAILABLE
        return None

    def abandon(self, waiter: Waiter[R]) -> None:
        """Forget a client that was cancelled while it waited."""
        self.queue.remove(waiter)
        self.books.cancelled += 1

    def give_back(self, slot: Slot[R], verdict: Verdict, now: float) -> None:
        """End one lease of ``slot``."""
        if self._shared:
            self._rack.discard(slot)
        slot.leases -= 1
        slot.idle_since = slot.checked_at = now
        if verdict is OK and slot.state is LEASED and self._takes_back_at_sight:
            slot.state = IDLE
            if self._line or self._watches_idle:
                self._offer(slot, now)
            else:
                self._rack.put(slot)
            return
        if verdict is not OK:
            self._follow(slot, verdict, now)
        elif slot.doom is None and self._quota.limited and self._quota.claims():
            self._doom(slot, Reason.EVICTED)
        elif self._shared:
            self._ask_capacity(slot)
        self._route(slot, now)

    # What became of callbacks

    def opened(self, slot: Slot[R], resource: R, now: float) -> None:
        self.fleet.opened_one(slot, resource, now)
        if slot.doom is None:
            self._upkeep.opened(slot, now, len(self.fleet.slots))
            if self._shared and self._ask_capacity(slot):
                self.supply.leases_each = max(1, slot.capacity)
        if slot.capacity > 0:  # one that takes no lease has yet to prove that it is worth having
            self.supply.succeeded()
        self._newborn = slot
        self._route(slot, now)
        self._newborn = None
        self.open_more(now)
        self._wake_by(self._upkeep.next_expiry())

    def open_failed(self, slot: Slot[R], error: BaseException, now: float, *, fatal: bool = False) -> None:
        """Forget a slot whose ``init`` failed, or was stopped by the pool (its doom says so: no failure, then)."""
        stopped = slot.doom is not None
        self.fleet.forget(slot)
        if not stopped:
            self.books.open_failures += 1
            self.supply.failed(error, now)
            if fatal or not self._waits_on_failure:
                self._disappoint(now)
        self.open_more(now)

    def pinged(self, slot: Slot[R], now: float, *, alive: bool) -> None:
        self.fleet.pinged(slot, now)
        if not alive or slot.doom is not None:
            self.retire(slot, Reason.PING, now)
        elif self._quota.limited and self._quota.claims():
            self.retire(slot, Reason.EVICTED, now)
        elif self.sizing.shut or (self.queue and not self.sizing.paused):
            self._rack.discard(slot)
            self._route(slot, now)
        self._serve(now)
        self._upkeep.became_idle(now)
        self._announce_idle()
        self._ping_due(now)
        self._rearm(now)

    def was_reset(self, slot: Slot[R], now: float, *, clean: bool) -> None:
        self.fleet.was_reset(slot, now)
        if not clean:
            self._doom(slot, Reason.RESET)
        elif slot.doom is None and self._quota.limited and self._quota.claims():
            self._doom(slot, Reason.EVICTED)
        self._route(slot, now)
        if slot.state is IDLE:
            self._rack.order(slot)
            self._rearm(now)
        self._serve(now)

    def terminated(self, slot: Slot[R], now: float) -> None:
        self.fleet.terminated(slot)
        self.open_more(now)

    # What the owner asks

    def retire(self, slot: Slot[R], reason: Reason, now: float) -> None:
        """See that ``slot`` is lent no more, and closed as soon as nobody has it."""
        self.fleet.retire(slot, reason)
        self._mourn(slot, now)
        if slot.state in {SlotState.PINGING, SlotState.RESETTING}:  # a waiter may have counted on it
            self._serve(now)
        self.open_more(now)

    def resize(self, min_size: int, max_size: int, now: float) -> None:
        """Change the limits. The surplus is retired: what is opening first, then the longest idle, the leased last."""
        self.sizing.min_size = min_size
        self.sizing.max_size = max_size
        staying = [slot for slot in self.fleet.slots if slot.doom is None]
        staying.sort(key=lambda slot: (slot.leases > 0, slot.state is not SlotState.OPENING, slot.idle_since))
        for slot in staying[: max(0, len(staying) - max_size)]:
            self.fleet.retire(slot, Reason.SURPLUS)
        self._announce_idle()
        self._serve(now)
        self.open_more(now)
        self._rearm(now)

    def refresh(self, spread: float, now: float) -> None:
        """Retire every present slot, one after the other over ``spread`` seconds; none is lent after its turn."""
        present = [slot for slot in self.fleet.slots if slot.doom is None]
        for turn, slot in enumerate(present):
            when = now + spread * turn / len(present)
            if when <= now:
                self.fleet.retire(slot, Reason.REFRESH)
            else:
                self._upkeep.expire_at(slot, when, Reason.REFRESH, len(self.fleet.slots))
        self._serve(now)
        self.open_more(now)
        self._rearm(now)

    def pause(self) -> None:
        self.sizing.paused = self._halted = True

    def resume(self, now: float) -> None:
        self.sizing.paused = False
        self._halted = self.sizing.shut
        self._serve(now)
        self.open_more(now)

    def broadcast(self, message: object, now: float) -> None:
        """Ask the worker what ``message`` means for each idle slot."""
        for slot in list(self._rack):
            if slot.state is not IDLE:  # the verdict on another one has changed it, or it is pinged
                continue
            verdict = self._hooks.message(slot.resource, message)
            if verdict is not OK:
                self._rack.discard(slot)
                self._follow(slot, verdict, now)
                self._route(slot, now)

    def recount(self, now: float) -> None:
        """Ask every living resource for its capacity again, and serve whoever can be served now."""
        for slot in list(self.fleet.slots):
            if slot.state is LEASED or slot.state is IDLE:
                self._recount_one(slot, now)

    def _recount_one(self, slot: Slot[R], now: float) -> None:
        was_barred = slot.capacity == 0
        if slot.state is LEASED:
            self._rack.discard(slot)
        self._ask_capacity(slot)
        if slot.state is IDLE:
            if slot.doom is None and was_barred == (slot.capacity == 0):  # it keeps its place
                return
            self._rack.discard(slot)
        self._route(slot, now)
        if slot.state is IDLE:
            self._rack.order(slot)

    def warm_up(self, size: int, now: float) -> None:
        """Keep ``size`` resources open until this is called again."""
        self.sizing.warm = size
        self._announce_idle()
        self.open_more(now)
        self._rearm(now)

    def drain(self, now: float) -> None:
        """Let nobody in any more. Who waits is served still, paused or not; what nobody waits for is closed."""
        self.sizing.shut = self._watches_idle = True
        self.resume(now)
        for slot in [slot for slot in self._rack if slot.leases == 0 and slot.state is IDLE]:
            if not self.queue:
                self.fleet.retire(slot, Reason.CLOSED)

    def close(self, now: float) -> None:
        """Let nobody in, refuse who waits, and retire every slot."""
        self.sizing.shut = self._halted = True
        self.sizing.min_size = self.sizing.warm = 0
        while self.queue:
            self._refuse(self.queue.head(), Refusal.CLOSED)
        for slot in list(self.fleet.slots):
            self.fleet.retire(slot, Reason.CLOSED)
        self._rearm(now)

    # What time brings

    def tick(self, now: float) -> None:
        """Do everything that is due."""
        for waiter in self.queue.expired(now):
            self._refuse(waiter, Refusal.TIMED_OUT)
        self._shed_overdue(now)
        for slot in self._upkeep.expired(now):
            self.fleet.retire(slot, slot.expiry)
        while len(self.fleet.slots) > self.sizing.least_size and self._upkeep.next_idle() <= now:
            oldest = self._rack.oldest()
            assert oldest is not None, "bug: a slot is idle too long, and none is idle"
            self.fleet.retire(oldest, Reason.IDLE)
            if self.queue and oldest.uses == 0:  # it never had room for a lease: do not open its like again at once
                self.supply.failed(PoolError("a new resource had no capacity until it was idle too long"), now)
        self._ping_due(now)
        self._serve(now)
        self.open_more(now)
        self._rearm(now)

    def next_due(self, now: float) -> float:
        """Return when ``tick`` has something to do; infinity if nothing will be due by itself."""
        due = min(self.queue.next_deadline(), self._upkeep.next_expiry())
        if self.queue:
            due = min(due, self._shedder.next_review)
        if len(self.fleet.slots) > self.sizing.least_size:
            due = min(due, self._upkeep.next_idle())
        if not self._upkeep.is_pinging_enough(self.fleet.pinging):
            due = min(due, self._upkeep.next_ping)
        if now < self.supply.retry_at and self.sizing.wants_more():
            due = min(due, self.supply.retry_at)
        return due

    # Opening

    def open_more(self, now: float) -> None:
        """Start to open what is needed, and see that the keeper wakes for what is needed later."""
        if self.sizing.open_more(now) or now < self.supply.retry_at:
            self._wake_by(self.next_due(now))

    def _disappoint(self, now: float) -> None:
        """Refuse the waiters that counted on an opening that failed; all of them, if there is no hope left."""
        count: float = len(self.queue)
        if not self.sizing.is_hopeless(now):
            count = min(self.supply.leases_each, self.sizing.unprovided())
        while self.queue and count > 0:
            self._refuse(self.queue.head(), Refusal.UNAVAILABLE)
            count -= 1

    def _mourn(self, slot: Slot[R], now: float) -> None:
        """If ``slot`` was lost at birth, or died young and unused, back off as if it could not have been opened."""
        young = slot.uses == 0 and now - slot.opened_at < self._infancy
        stillborn = slot is self._newborn and slot.doom in UNHEALTHY
        if slot.state is SlotState.CLOSING and (stillborn or (young and slot.doom in _DEATHS)):
            self.supply.relapsed(PoolError(f"a new resource was lost before its first use: {slot.doom}"), now)

    # Lending

    def _approve(self, slot: Slot[R], request: object, now: float) -> bool:
        """Tell whether ``slot``, out of the rack, may be lent for ``request``; if not, it has been sent its way."""
        if now >= slot.expires_at:
            self.retire(slot, slot.expiry, now)
            return False
        if slot.leases == 0 and now - slot.idle_since > self._fresh_for and self._is_stale(slot, now):
            return False
        if not self._hooks.judges_checkout:
            return True
        verdict = self._hooks.checkout(slot.resource, request)
        if verdict is OK or (verdict is Verdict.RESET and slot.reset_at_use == slot.uses):
            return True
        self._follow(slot, verdict, now)
        self._route(slot, now)
        return False

    def _is_stale(self, slot: Slot[R], now: float) -> bool:
        """Tell whether ``slot`` was idle for too long to be lent as it is; if so, it has been sent its way."""
        if now - slot.idle_since > self._max_idle and len(self.fleet.slots) > self.sizing.least_size:
            self.retire(slot, Reason.IDLE, now)
            return True
        if now - slot.checked_at > self._ping_after:
            self._rack.put_back(slot)
            self.fleet.ping(slot)
            return True
        return False

    def _lend(self, slot: Slot[R], waiter: Waiter[R], now: float) -> bool:
        """Give ``waiter`` a lease of ``slot``, out of the rack; tell whether the slot has room for another."""
        waiter.slot = slot
        waiter.since = now
        slot.leases += 1
        slot.uses += 1
        slot.state = LEASED
        if slot.uses >= self._max_uses:
            self.fleet.retire(slot, Reason.USES)
        elif self._shared:
            if self._ask_capacity(slot):
                return slot.leases < slot.capacity
            self._keep_from_lending(slot)
        return False

    def _serve(self, now: float) -> None:
        """Lend what is free to who waits, but for those for whom enough is being pinged or reset."""
        while (
            not self.sizing.paused
            and len(self.queue) > self.fleet.coming_back
            and (slot := self._rack.take()) is not None
        ):
            self._route(slot, now)

    def _route(self, slot: Slot[R], now: float) -> None:
        """Send on a slot that came free, in whole or in part, and is in no rack: its figures say where to."""
        if slot.doom is None and not slot.unclean:
            slot.state = LEASED if slot.leases else IDLE
            if slot.leases < slot.capacity:
                if self._line or self._watches_idle:
                    self._offer(slot, now)
                else:
                    self._rack.put(slot)
            elif slot.leases == 0:
                self._shelve(slot, now)
        elif slot.leases > 0:
            self._keep_from_lending(slot)
        elif slot.doom is None:
            self.fleet.reset(slot)
        else:
            self.fleet.close(slot)
            self._mourn(slot, now)
            self.open_more(now)

    def _keep_from_lending(self, slot: Slot[R]) -> None:
        if slot.doom is not None and slot.state is not SlotState.RETIRED:
            self.fleet.retired += 1
            slot.state = SlotState.RETIRED

    def _offer(self, slot: Slot[R], now: float) -> None:
        """Hand a slot with room to the waiters at the head; shelve it when none is left."""
        while self._line and not self.sizing.paused:
            waiter = self._line[0]
            if self._sheds and self._shedder.overstayed(now - waiter.since, now, self.books.direct):
                self._refuse(waiter, Refusal.SHED)
                continue
            try:
                approved = (self._lends_at_sight and now < slot.expires_at) or self._approve(slot, waiter.request, now)
            except Skip as skip:
                self._refuse(waiter, skip)
                continue
            except BaseException as error:  # noqa: BLE001 - it is the client's
                self._refuse(waiter, error)
                self.retire(slot, Reason.FAILED, now)
                return
            if not approved:
                return
            self.queue.pop()
            self.books.enter_wait(now - waiter.since)
            self.outbox.append(waiter)
            if not self._lend(slot, waiter, now):
                return
        self._shelve(slot, now)

    def _shelve(self, slot: Slot[R], now: float) -> None:
        self._rack.put(slot)
        if self._watches_idle and slot.leases == 0:
            self._became_idle(slot, now)

    def _became_idle(self, slot: Slot[R], now: float) -> None:
        if self.sizing.shut and not self.queue:  # one without capacity waits for it, as the clients do
            self.fleet.retire(slot, Reason.CLOSED)
            return
        self._announce_idle()
        self._upkeep.became_idle(now)
        if now + self._upkeep.patience < self.alarm:
            self._rearm(now)

    def _announce_idle(self) -> None:
        """Let the pools that share the quota know what is idle here and may have to make room."""
        if self._quota.limited and (oldest := self._rack.oldest()) is not None:
            self._quota.became_idle(oldest.idle_since)

    def _refuse(self, waiter: Waiter[R], outcome: Refusal | BaseException) -> None:
        """Settle ``waiter`` without a lease, and enter it in the books."""
        if waiter.pending:
            self.queue.remove(waiter)
        waiter.outcome = outcome.error if isinstance(outcome, Skip) else outcome
        self.outbox.append(waiter)
        self.books.enter_refusal(outcome)

    # Verdicts

    def _follow(self, slot: Slot[R], verdict: Verdict, now: float) -> None:
        """Write down what ``verdict`` asks for; `_route` acts on it."""
        if verdict is Verdict.RESET:
            slot.unclean = True
            return
        outdated = slot.doom is Reason.REFRESH  # what was opened since is not what it complains of
        self._doom(slot, Reason.REMOVED)
        if verdict is Verdict.REFRESH and not outdated:
            self.refresh(0.0, now)

    def _doom(self, slot: Slot[R], reason: Reason) -> None:
        if slot.doom is None:
            slot.doom = reason

    def _ask_capacity(self, slot: Slot[R]) -> bool:
        """Update the slot's capacity; a callback that failed dooms the resource, and the answer is False."""
        capacity = self._hooks.capacity(slot.resource)
        if capacity is None:
            self._doom(slot, Reason.FAILED)
            return False
        slot.capacity = capacity
        return True

    # Time

    def _shed_overdue(self, now: float) -> None:
        """Review a queue that does not move."""
        while self.queue:
            waiter = self.queue.head()
            if not self._shedder.overstayed(now - waiter.since, now, self.books.direct):
                return
            self._refuse(waiter, Refusal.SHED)

    def _ping_due(self, now: float) -> None:
        for slot in self._upkeep.pings_due(now, self.fleet.pinging):
            self.fleet.ping(slot)

    def _wake_by(self, when: float) -> None:
        if when < self.alarm:
            self._set_alarm(when)

    def _rearm(self, now: float) -> None:
        self._set_alarm(self.next_due(now))

    def _set_alarm(self, when: float) -> None:
        if when != self.alarm:
            self.alarm = when
            self.outbox.append((Job.ALARM, None))
