"""The fleet: every slot of a pool, how many are in which state, and the work under way on them."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeVar, final

from ._rack import Rack, SharedRack
from ._slot import Slot, SlotState
from ._verdict import UNHEALTHY, Reason

if TYPE_CHECKING:
    from ._options import Settings
    from ._quota import Quota
    from ._waiter import Waiter

R = TypeVar("R")


@final
class Job(Enum):
    """What the shell is to do with a slot."""

    OPEN = "open"
    PING = "ping"
    RESET = "reset"
    CLOSE = "close"
    ABORT = "abort"
    """Cancel the callback that runs on it; its end is an event as always."""
    ALARM = "alarm"
    """Wake the keeper at another time (this one concerns no slot)."""


@final
class Fleet(Generic[R]):
    """The moves of slots that do not concern the waiters.

    Invariants:
        opening, pinging, resetting, retired = how many of ``slots`` are in that state
        closing = how many slots are CLOSING; none of them is in ``slots``
        coming_open, coming_pings, coming_resets = how many are OPENING, PINGING, RESETTING without doom
        every slot that is OPENING, PINGING, RESETTING or CLOSING has one callback running, or queued in the outbox
        opened = closed + closing + the open ones in ``slots``
    """

    def __init__(self, settings: Settings, *, shared: bool, quota: Quota) -> None:
        self.slots: dict[Slot[R], None] = {}
        """Every slot but those that are closing or closed."""
        self.rack: Rack[R] = (SharedRack if shared else Rack)(settings.order)
        self.outbox: deque[Waiter[R] | tuple[Job, Slot[R] | None]] = deque()
        """What the shell has to do: waiters to wake, callbacks to start or stop."""
        self._strict = settings.strict_size
        self._quota = quota
        self.opening = 0
        self.pinging = 0
        self.resetting = 0
        self.retired = 0
        self.closing = 0
        self.coming_open = 0
        self.coming_pings = 0
        self.coming_resets = 0
        self.opened = 0
        self.closed = 0
        self.lost = 0
        """Resources that were closed because they were dead, broken or left dirty."""

    @property
    def size(self) -> int:
        """How many resources count against ``max_size``."""
        return len(self.slots) + (self.closing if self._strict else 0)

    @property
    def living(self) -> int:
        """How many resources are open and not retired."""
        return len(self.slots) - self.opening - self.retired

    @property
    def idle(self) -> int:
        """How many resources are IDLE; those that are being pinged keep their place in the rack but are not."""
        return self.rack.resting() - self.coming_pings

    @property
    def coming_back(self) -> int:
        """How many resources will be lendable after a ping or a reset, if it goes well."""
        return self.coming_pings + self.coming_resets

    def latest_opening(self) -> Slot[R]:
        """Return the slot whose opening began last; there must be one without doom."""
        return next(slot for slot in reversed(self.slots) if slot.state is SlotState.OPENING and slot.doom is None)

    def open_one(self) -> bool:
        """Start to open a resource, if there is room for it beside the other pools that share the quota."""
        if not self._quota.take():
            return False
        slot: Slot[R] = Slot()
        self.slots[slot] = None
        self.opening += 1
        self.coming_open += 1
        self.outbox.append((Job.OPEN, slot))
        return True

    def opened_one(self, slot: Slot[R], resource: R, now: float) -> None:
        self.opening -= 1
        self.opened += 1
        self.coming_open -= slot.doom is None
        slot.resource = resource
        slot.opened_at = slot.idle_since = slot.checked_at = now
        slot.state = SlotState.IDLE

    def forget(self, slot: Slot[R]) -> None:
        """Drop a slot whose resource was never opened."""
        self.opening -= 1
        self.coming_open -= slot.doom is None
        slot.state = SlotState.CLOSED
        del self.slots[slot]
        self._quota.give_back(evicted=slot.doom is Reason.EVICTED)

    def ping(self, slot: Slot[R]) -> None:
        slot.state = SlotState.PINGING
        self.pinging += 1
        self.coming_pings += 1
        self.outbox.append((Job.PING, slot))

    def pinged(self, slot: Slot[R], now: float) -> None:
        self.pinging -= 1
        self.coming_pings -= slot.doom is None
        slot.checked_at = now
        slot.state = SlotState.IDLE

    def reset(self, slot: Slot[R]) -> None:
        slot.unclean = False
        slot.state = SlotState.RESETTING
        self.resetting += 1
        self.coming_resets += 1
        self.outbox.append((Job.RESET, slot))

    def was_reset(self, slot: Slot[R], now: float) -> None:
        self.resetting -= 1
        self.coming_resets -= slot.doom is None
        slot.reset_at_use = slot.uses
        slot.checked_at = now
        slot.state = SlotState.IDLE

    def retire(self, slot: Slot[R], reason: Reason) -> None:
        """See that ``slot`` is lent no more, and closed as soon as nobody has it. Its first reason stands."""
        first = slot.doom is None
        if first:
            slot.doom = reason
        match slot.state:
            case SlotState.IDLE:
                self.rack.discard(slot)
                self.close(slot)
            case SlotState.LEASED:
                self.rack.discard(slot)
                slot.state = SlotState.RETIRED
                self.retired += 1
            case SlotState.OPENING if first:
                self.coming_open -= 1
                self.outbox.append((Job.ABORT, slot))
            case SlotState.PINGING if first:
                self.rack.discard(slot)
                self.coming_pings -= 1
                self.outbox.append((Job.ABORT, slot))
            case SlotState.RESETTING if first:
                self.coming_resets -= 1
                self.outbox.append((Job.ABORT, slot))
            case _:
                pass

    def close(self, slot: Slot[R]) -> None:
        """Start to terminate a doomed slot that nobody has."""
        assert slot.doom is not None, "bug: a slot closes for no reason"
        self.retired -= slot.state is SlotState.RETIRED
        slot.state = SlotState.CLOSING
        del self.slots[slot]
        self.closing += 1
        self.lost += slot.doom in UNHEALTHY
        self.outbox.append((Job.CLOSE, slot))
        if not self._strict:
            self._quota.give_back(evicted=slot.doom is Reason.EVICTED)

    def terminated(self, slot: Slot[R]) -> None:
        self.closing -= 1
        self.closed += 1
        slot.state = SlotState.CLOSED
        if self._strict:
            self._quota.give_back(evicted=slot.doom is Reason.EVICTED)
