"""The trio shell: it does what the pure part has decided, and tells it what happened.

What it does for clients, callbacks and the owner is one pattern with many short methods, and so one class; the work
itself is done by `_crew` (callbacks), `_lease` (clients) and `_supervision` (leases overdue, lost or revoked).
"""

from __future__ import annotations

import logging
import random
from math import inf
from threading import get_ident
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar, final

import trio
from trio.lowlevel import current_clock, enable_ki_protection

from ._check import or_no_limit
from ._crew import Crew
from ._diagnosis import closed, explain, unavailable
from ._hooks import Hooks
from ._lease import Lease
from ._observer import Audience
from ._options import DEFAULT_CLOSE_GRACE
from ._slot import SlotState
from ._state import PoolState
from ._stats import PoolStats, PoolStatus, read_stats
from ._supervised import ObservedLease, SupervisedLease
from ._supervision import Supervision
from ._verdict import Fatal, Reason, Stage
from ._waiter import Refusal, Waiter

if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable

    from ._acquired import AcquiredLease
    from ._breaker import BreakerState
    from ._errors import PoolError
    from ._fleet import Job
    from ._options import Settings
    from ._quota import Quota
    from ._slot import Slot
    from ._worker import PoolWorker

R = TypeVar("R")
P = ParamSpec("P")
logger = logging.getLogger("nimblepool")


@final
class Engine(Generic[R]):
    """One pool at work: the state, the leases that are out, the keeper, and the tasks that run callbacks.

    Every event follows one pattern: tell the state, then `flush`, which empties the outbox. No method but the ones that
    say so waits, so that nothing can come between the two; and Ctrl-C is held back meanwhile, as in trio's own
    primitives, for an exception in the midst of a change would leave it half done.

    Invariants:
        held lists the leases that are held, the oldest first; those that were acquired by weak reference
        the outbox is empty whenever a task of anybody runs
    """

    def __init__(self, worker: PoolWorker[R], settings: Settings, nursery: trio.Nursery, quota: Quota) -> None:
        self.name = settings.name
        self.settings = settings
        self.now: Callable[[], float] = current_clock().current_time
        self.hooks = Hooks(worker, self._crash)
        self.state: PoolState[R] = PoolState(
            settings,
            self.hooks,
            rng=random.Random(),  # noqa: S311 - jitter is no secret
            now=self.now(),
            quota=quota,
        )
        self.outbox = self.state.outbox
        self.held: dict[Lease[R] | weakref.ref[AcquiredLease[R]], None] = {}
        self.audience = Audience(settings.name, settings.observers, self._crash)
        self.supervision: Supervision[R] = Supervision(self, settings.max_hold)
        self.closed = trio.Event()
        supervised = settings.max_hold is not None or settings.close_grace is not None or settings.on_death == "cancel"
        self.lease_type: type[Lease[R]] = Lease
        if supervised:
            self.lease_type = SupervisedLease
        elif self.audience:
            self.lease_type = ObservedLease
        self.default_timeout = or_no_limit(settings.checkout_timeout)
        self.quota = quota
        self.limited = quota.limited
        self.room = quota.limit
        """How much room for resources there is in all, those of other pools included."""
        self._worker = worker
        self._nursery = nursery
        self._thread = get_ident()
        self._crew: Crew[R] = Crew(self, worker, settings, nursery)
        self._keeper = trio.CancelScope(shield=True)
        self._nap = trio.CancelScope()
        self._changed = trio.lowlevel.ParkingLot()
        self._onlookers = 0
        """How many tasks wait for a change that is no lease (`_until`)."""
        self._wanted: list[int] = []
        """What those ask for who are in `wait_ready`."""
        self._final_failures = 0
        """How many failures to open there were that nobody waits out."""
        self._open_error: BaseException | None = None
        """How opening failed last, while there are any of them."""
        self._starting = trio.Lock()
        self._started = False
        self._closing = False

    # Life

    async def start(self) -> None:
        """Run the worker's ``start``, then the keeper."""
        await self.start_worker()
        self.run()

    async def start_worker(self) -> None:
        """Run the worker's ``start``, once."""
        async with self._starting:
            if not self._started:
                await self._worker.start()
                self._started = True

    @enable_ki_protection
    def run(self) -> None:
        """Run the keeper, and open what ``min_size`` asks for."""
        self._nursery.start_soon(self._keep, name=f"{self.name}: keeper")
        self.state.open_more(self.now())
        self.flush()

    @enable_ki_protection
    async def close(self) -> None:
        """Close every resource. An outside cancellation cuts short the grace of leases, and nothing else."""
        if not self.begin_closing():
            await self.closed.wait()
            return
        try:
            with trio.move_on_after(self.grace):
                await self.until_unused()
        finally:
            self.start_to_finish()
            with trio.CancelScope(shield=True):
                await self.closed.wait()

    @property
    def grace(self) -> float:
        """How long leases may last once the pool closes, in seconds."""
        return DEFAULT_CLOSE_GRACE if self.settings.close_grace is None else self.settings.close_grace

    @enable_ki_protection
    def begin_closing(self) -> bool:
        """Lend to nobody, and close what is not leased; false if that has been done."""
        if self._closing:
            return False
        self._closing = True
        self.quota.leave()
        self.state.close(self.now())
        self.supervision.wrest_from_the_gone()
        self.flush()
        return True

    async def until_unused(self) -> None:
        """Wait until no lease is held."""
        await self._until(lambda: not self.held)

    def start_to_finish(self) -> None:
        """Let a task of the pool's own do the rest of the closing.

        Trio delivers Ctrl-C to the main task even where that is shielded, and it must not leave the closing half done.
        """
        self._nursery.start_soon(self._finish_closing, name=f"{self.name}: closing")

    @enable_ki_protection
    async def _finish_closing(self) -> None:
        """Take back what is leased still, and wait until every resource is closed."""
        with trio.CancelScope(shield=True):
            if self.held:
                if self.settings.close_grace is not None and self.supervision.revoke():
                    with trio.move_on_after(self.settings.terminate_timeout):
                        await self.until_unused()
                self.supervision.wrest()
                self.flush()
            fleet = self.state.fleet
            await self._until(lambda: not fleet.slots and not fleet.closing)
            self._keeper.cancel()
            self.supervision.close()
            if self._started:
                await self._stop_worker()
            self.closed.set()

    async def drain(self) -> None:
        """Serve who waits, let nobody else in, and wait until all leases have ended."""
        self.tell(self.state.drain, self.now())
        await self._until(lambda: not self.held and not self.state.queue)

    async def wait_ready(self, count: int) -> None:
        """Wait until ``count`` resources are open; see `Pool.wait_ready`."""
        state = self.state
        failures = self._final_failures
        self._wanted.append(count)
        self.tell(state.warm_up, max(self._wanted), self.now())
        try:
            await self._until(
                lambda: (
                    state.fleet.living >= count
                    or count > state.sizing.max_size
                    or state.sizing.shut
                    or self._final_failures > failures
                )
            )
        finally:
            self._wanted.remove(count)
            error = self._open_error
            if not self._wanted:
                self._open_error = None
            self.tell(state.warm_up, max(self._wanted, default=0), self.now())
        if state.sizing.shut:
            raise closed(self)
        if count > state.sizing.max_size:
            raise ValueError(f"n must be at most max_size, which is {state.sizing.max_size} by now, not {count}")
        if state.fleet.living < count:
            raise unavailable(self, error)

    # Clients

    def refused(self, lease: Lease[R], refusal: Refusal) -> PoolError:
        """Let those know who want to that ``lease`` will not come about, and return the error that says why."""
        if refusal is Refusal.TIMED_OUT:
            self.hooks.cancelled(Stage.QUEUED, lease.request)
            self.audience.tell("timeout", self.now() - lease.since)
        elif refusal in {Refusal.SHED, Refusal.FULL}:
            self.audience.tell("shed", self.now() - lease.since)
        return explain(self, lease, refusal)

    @enable_ki_protection
    def gave_up(self, lease: Lease[R]) -> None:
        """Take a cancelled client out of the queue."""
        self.state.abandon(lease)
        self.flush()
        self.hooks.cancelled(Stage.QUEUED, lease.request)
        self.audience.tell("cancelled", self.now() - lease.since)

    @enable_ki_protection
    def tell(self, event: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Tell the state of an event, and do what it decides.

        Raises:
            RuntimeError: this is not the thread of the pool.
        """
        self.check_thread()
        try:
            event(*args, **kwargs)
        finally:
            self.flush()

    def check_thread(self) -> None:
        """Raise ``RuntimeError`` unless this is the trio thread in which the pool was opened."""
        if get_ident() != self._thread:
            raise RuntimeError(f"pool {self.name!r} belongs to another thread: go through trio.from_thread.run_sync")

    @enable_ki_protection
    def refuse_now(self) -> PoolError:
        """Count a client that does not want to wait, and return the error for it."""
        refusal = Refusal.CLOSED if self.state.sizing.shut else Refusal.NOTHING_IDLE
        self.state.refuse_now(refusal)
        return explain(self, Waiter(None, 0.0), refusal)

    def retire(self, slot: Slot[R], reason: Reason) -> None:
        self.tell(self.state.retire, slot, reason, self.now())

    def evict(self, slot: Slot[R]) -> None:
        """Close an idle resource, or stop opening one, in favour of another pool."""
        self.retire(slot, Reason.EVICTED)

    @enable_ki_protection
    def reconsider(self) -> None:
        """Open what is needed, now that there is room."""
        self.state.open_more(self.now())
        self.flush()

    @property
    def status(self) -> PoolStatus:
        """What the pool does at present."""
        if self.closed.is_set():
            return "closed"
        if self._closing:
            return "closing"
        if self.state.sizing.shut:
            return "draining"
        return "paused" if self.state.sizing.paused else "open"

    @property
    def is_closing(self) -> bool:
        """Whether the closing has begun."""
        return self._closing

    @property
    def in_use(self) -> bool:
        """Whether anybody holds a lease or waits for one."""
        return bool(self.held or self.state.queue)

    @enable_ki_protection
    def replace(self, slot: Slot[R], resource: R) -> None:
        """Put another resource into ``slot``, and watch that one."""
        self.check_thread()
        slot.resource = resource
        self._crew.watch(slot)

    def stats(self) -> PoolStats:
        return read_stats(self, foreign=get_ident() != self._thread)

    # What became of callbacks

    @enable_ki_protection
    def opened(self, slot: Slot[R], resource: R, took: float) -> None:
        before = self._breaker()
        self.state.opened(slot, resource, self.now())
        if slot.state is not SlotState.CLOSING:
            self._crew.watch(slot)
        self.flush()
        self.audience.tell("open", took)
        self._tell_breaker(before)

    @enable_ki_protection
    def open_failed(self, slot: Slot[R], error: BaseException, took: float) -> None:
        stopped = slot.doom is not None
        before = self._breaker()
        told = self.state.books.failed
        fatal = isinstance(error, Fatal)
        if isinstance(error, Fatal):
            error = error.error
        if self._wanted and not stopped:
            self._open_error = error
        if not stopped and (fatal or self.settings.on_open_failure != "wait"):
            self._final_failures += 1
        self.state.open_failed(slot, error, self.now(), fatal=fatal)
        self.flush()
        if not stopped:
            # A client that gets the error itself need not be warned of it.
            level = logging.WARNING if self.state.books.failed == told else logging.INFO
            logger.log(level, "pool %r: opening a resource failed: %r", self.name, error)
            self.audience.tell("open_failed", error, took)
            self._tell_breaker(before)

    @enable_ki_protection
    def pinged(self, slot: Slot[R], error: BaseException | None) -> None:
        failed = error is not None and slot.doom is None
        self.state.pinged(slot, self.now(), alive=error is None)
        self.flush()
        if failed:
            logger.info("pool %r: ping failed, the resource is removed: %r", self.name, error)
            self.audience.tell("ping_failed", error)

    @enable_ki_protection
    def was_reset(self, slot: Slot[R], error: BaseException | None) -> None:
        failed = error is not None and slot.doom is None
        self.state.was_reset(slot, self.now(), clean=error is None)
        self.flush()
        if failed:
            logger.warning("pool %r: reset failed, the resource is removed: %r", self.name, error)
            self.audience.tell("reset_failed", error)

    @enable_ki_protection
    def died(self, slot: Slot[R], error: Exception | None) -> None:
        if slot.state in {SlotState.CLOSING, SlotState.CLOSED}:
            return
        logger.info("pool %r: a resource died: %r", self.name, error)
        if self.settings.on_death == "cancel":
            self.supervision.cancel_on_death(slot, error)
        self.retire(slot, Reason.DIED)
        self.audience.tell("died", error)

    @enable_ki_protection
    def terminated(self, slot: Slot[R]) -> None:
        now = self.now()
        self.state.terminated(slot, now)
        self.flush()
        self.audience.tell("close", slot.doom, now - slot.opened_at)

    # Doing what was decided

    def flush(self) -> None:
        """Do everything in the outbox, and let those look who wait for a change."""
        outbox = self.outbox
        while outbox:
            item = outbox.popleft()
            if isinstance(item, Lease):
                item.settled()
            elif isinstance(item, tuple):
                self._do(*item)
        if self._onlookers:
            self._changed.unpark_all()
        if self.limited:
            self.quota.settle()

    def _do(self, job: Job, slot: Slot[R] | None) -> None:
        if slot is None:
            self._nap.deadline = self._next_due()
        else:
            self._crew.start(job, slot)

    def wake_by(self, when: float) -> None:
        """Let the keeper wake at ``when`` at the latest."""
        self._nap.deadline = min(self._nap.deadline, when)

    def rouse(self) -> None:
        """Wake the keeper now."""
        self._nap.deadline = -inf

    async def _keep(self) -> None:
        """Be the keeper: sleep until something is due, and see that it is done."""
        with self._keeper:
            while True:
                with trio.CancelScope(deadline=self._next_due()) as self._nap:
                    await trio.sleep_forever()
                self._tick()

    @enable_ki_protection
    def _tick(self) -> None:
        before = self._breaker()
        self.state.tick(self.now())
        self.supervision.tick(self.now())
        self.flush()
        self._tell_breaker(before)

    def _next_due(self) -> float:
        return min(self.state.alarm, self.supervision.next_due())

    def _crash(self, error: BaseException) -> None:
        """End the pool, and what it is part of, with ``error``."""

        async def crash() -> None:
            raise error

        self._nursery.start_soon(crash, name=f"{self.name}: crash")

    async def _until(self, condition: Callable[[], bool]) -> None:
        self._onlookers += 1
        try:
            while not condition():
                await self._changed.park()
        finally:
            self._onlookers -= 1

    async def _stop_worker(self) -> None:
        timeout = self.settings.terminate_timeout
        try:
            with trio.move_on_after(timeout) as scope:
                await self._worker.stop()
            if scope.cancelled_caught:
                logger.error("%s.stop took longer than %g s", type(self._worker).__name__, timeout)
        except Exception:
            logger.exception("%s.stop failed", type(self._worker).__name__)

    def _breaker(self) -> BreakerState:
        return self.state.supply.breaker(self.now())

    def _tell_breaker(self, before: BreakerState) -> None:
        after = self._breaker()
        if after != before:
            # That an outage goes on is no news: each probe half-opens the breaker, and its failure opens it again.
            level = logging.WARNING if "closed" in {before, after} else logging.DEBUG
            logger.log(level, "pool %r: the circuit breaker is %s", self.name, after)
            self.audience.tell("breaker", after)
