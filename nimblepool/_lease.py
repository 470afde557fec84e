"""The lease: the right to use a resource for a while, and the only way to it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Generic, NoReturn, Self, TypeVar, cast, final

import trio
from trio.lowlevel import (
    Abort,
    cancel_shielded_checkpoint,
    checkpoint_if_cancelled,
    current_task,
    enable_ki_protection,
    reschedule,
    wait_task_rescheduled,
)

from ._errors import LeaseExpired
from ._verdict import OK, Reason, Stage, Verdict
from ._waiter import Refusal, Waiter

if TYPE_CHECKING:
    from types import TracebackType

    from ._engine import Engine
    from ._slot import Slot

R = TypeVar("R")
logger = logging.getLogger("nimblepool")


class Lease(Waiter[R]):
    """A checkout, and then the lease that it obtained: ``async with pool.checkout() as lease``.

    It belongs to the trio thread of its pool.

    Invariants:
        slot is not None if and only if the lease is held, and then the engine's ``held`` lists it
        _task is not None once it was entered
        _asleep implies that _task waits, or waited, to be rescheduled when this is settled
        _fate is not None implies that the pool has ended the lease, or is cancelling its body
    """

    __slots__ = ("_asleep", "_engine", "_fate", "_task")

    def __init__(self, engine: Engine[R], request: object, timeout: float) -> None:
        # What a waiter's own __init__ does is repeated: a call of it would cost as much as all of this.
        self.request = request
        self.timeout = timeout
        self.slot: Slot[R] | None = None
        self.outcome: Refusal | BaseException | None = None
        self._engine = engine
        self._task: trio.lowlevel.Task | None = None
        self._asleep = False
        self._fate: Exception | None = None

    @property
    def resource(self) -> R:
        """The resource.

        Raises:
            LeaseExpired: the lease has ended; `LeaseRevoked` and `LeaseTimeout`, which are that too, say that the pool
                ended it.
        """
        slot = self.slot
        return (self._held_slot() if slot is None else slot).resource

    @property
    def age(self) -> float:
        """Seconds since the resource was opened."""
        return self._engine.now() - self._held_slot().opened_at

    @property
    def held_for(self) -> float:
        """Seconds since the lease began."""
        self._held_slot()
        return self._engine.now() - self.since

    @property
    def is_held(self) -> bool:
        """Whether the lease has begun and not ended."""
        return self.slot is not None

    @property
    def task(self) -> trio.lowlevel.Task | None:
        """The task that entered the checkout."""
        return self._task

    @property
    def holder(self) -> str:
        """The name of that task."""
        return "nobody" if self._task is None else self._task.name

    def remove(self, reason: Reason | str = Reason.REMOVED) -> None:
        """See that the resource is terminated, and not lent on, when this lease ends.

        Args:
            reason: a `Reason`, which ``terminate`` is told, or words for the log.
        """
        slot = self._held_slot()
        if not isinstance(reason, Reason):
            logger.info("pool %r: a resource is removed: %s", self._engine.name, reason)
            reason = Reason.REMOVED
        self._engine.retire(slot, reason)

    def replace(self, resource: R) -> None:
        """Put ``resource`` in the place of the leased one (STARTTLS, a reconnect).

        The new one is lent on and terminated like any other, and keeps the age and the uses of the old one. That is the
        caller's: the pool forgets it. Other leases of a shared resource get to see the new one, too.
        """
        self._engine.replace(self._held_slot(), resource)

    def release(self) -> None:
        """End the lease now, in good order. Idempotent; never waits, and is no checkpoint.

        Raises:
            RuntimeError: this is not the thread of the pool.
        """
        self._engine.check_thread()
        if self.slot is not None:
            self._end(None)

    @enable_ki_protection
    async def __aenter__(self) -> Self:
        await checkpoint_if_cancelled()
        try:
            waits = not self._take() and self._queue()
        except BaseException:
            await cancel_shielded_checkpoint()
            raise
        if waits:
            self._asleep = True
            await wait_task_rescheduled(self._give_up)
        else:
            await cancel_shielded_checkpoint()
        if self.outcome is not None:
            self._raise_outcome()
        return self

    @enable_ki_protection
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave(exc)

    def __repr__(self) -> str:
        state = f"held by {self.holder} for {self.held_for:.3g} s" if self.is_held else "not held"
        return f"<{type(self).__name__} of pool {self._engine.name!r}, {state}>"

    # For the pool's own use

    def enter_now(self) -> None:
        """Begin the lease without waiting, or raise `NoneIdle` or `PoolClosed`."""
        if not self._take():
            raise self._engine.refuse_now()

    def leave(self, exc: BaseException | None) -> None:
        """End the lease when its body has ended, with ``exc`` or in good order."""
        if self.slot is not None:
            self._end(exc)
        elif self._fate is not None and exc is not None and not isinstance(exc, (LeaseExpired, trio.Cancelled)):
            exc.add_note(f"(before, the pool had ended the lease: {self._fate})")

    def settled(self) -> None:
        """Begin the lease, or find the words for the refusal; and wake the task that waits."""
        if self.slot is not None:
            self._begin()
        elif isinstance(self.outcome, Refusal):
            self.outcome = self._engine.refused(self, self.outcome)
        if self._asleep:
            assert self._task is not None, "bug: nobody has entered a checkout that waits"
            reschedule(self._task)

    @enable_ki_protection
    def forfeit(self, fate: Exception, reason: Reason) -> None:
        """End the lease from the pool's side; the resource is closed as soon as no other lease is on it."""
        self._fate = fate
        self._engine.retire(self._held_slot(), reason)
        self._end(fate)

    def is_on(self, slot: Slot[R]) -> bool:
        """Whether ``slot`` is what the lease is for."""
        return self.slot is slot

    def _held_slot(self) -> Slot[R]:
        if self.slot is not None:
            return self.slot
        if self._fate is not None:
            raise type(self._fate)(*self._fate.args)
        if self._task is None:
            raise LeaseExpired("this checkout was not entered: use `async with pool.checkout() as lease`")
        raise LeaseExpired(f"this lease of pool {self._engine.name!r} has ended; check out another")

    @enable_ki_protection
    def _take(self) -> bool:
        """Begin the lease if a slot is free."""
        if self._task is not None:
            raise RuntimeError("a lease can be entered only once (and `acquire` has done it); call checkout() again")
        self._task = current_task()
        engine = self._engine
        try:
            self.since = engine.now()
            if taken := engine.state.lend_now(self, self.since):
                self._begin()
        finally:
            if engine.outbox:
                engine.flush()
        return taken

    @enable_ki_protection
    def _queue(self) -> bool:
        """Queue for a slot; tell whether it has to be waited for."""
        engine = self._engine
        try:
            engine.state.enqueue(self, self.since)
        finally:
            if engine.outbox or engine.limited:
                engine.flush()
        return self.pending

    @enable_ki_protection
    def _give_up(self, _: object) -> Abort:
        """Leave the queue; trio calls this when the task that waits is cancelled."""
        self._engine.gave_up(self)
        return Abort.SUCCEEDED

    def _begin(self) -> None:
        """Take note that the lease has begun: at ``since``, on ``slot``."""
        self._engine.held[self] = None

    def _raise_outcome(self) -> NoReturn:
        outcome, self.outcome = self.outcome, None
        assert isinstance(outcome, BaseException), "bug: a refusal without words"
        try:
            raise outcome
        finally:
            del outcome  # its traceback has this frame: no cycle, or what it refers to lives until the collector runs

    @enable_ki_protection
    def _end(self, error: BaseException | None) -> None:
        engine = self._engine
        slot = self.slot
        assert slot is not None, "bug: a lease ends twice"
        self.slot = None
        del engine.held[self]
        verdict = Verdict.REMOVE
        try:
            if error is None and not engine.hooks.judges_checkin:  # noqa: SIM108 - each case is a sentence
                verdict = OK
            else:
                verdict = self._judge(slot, error)
        finally:
            engine.state.give_back(slot, verdict, engine.now())
            if engine.outbox:
                engine.flush()

    def _judge(self, slot: Slot[R], error: BaseException | None) -> Verdict:
        hooks = self._engine.hooks
        if error is not None and _is_cancellation(error):
            hooks.cancelled(Stage.LEASED, self.request)
        return hooks.checkin(slot.resource, error)


def _is_cancellation(error: BaseException) -> bool:
    """Whether ``error`` is a cancellation, or what a nursery makes of several."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return all(map(_is_cancellation, group.exceptions))
    return isinstance(error, trio.Cancelled)


@final
class PromptCheckout(Generic[R]):
    """A checkout that does not wait: ``with pool.checkout_nowait() as lease``."""

    __slots__ = ("_lease",)

    def __init__(self, lease: Lease[R]) -> None:
        self._lease = lease

    @enable_ki_protection
    def __enter__(self) -> Lease[R]:
        self._lease.enter_now()
        return self._lease

    @enable_ki_protection
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lease.leave(exc)
