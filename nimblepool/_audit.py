"""The invariants of the pool's pure part, asserted by counting again."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from ._rack import SharedRack
from ._slot import SlotState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._slot import Slot
    from ._state import PoolState

R = TypeVar("R")


def audit(state: PoolState[R], now: float) -> None:
    """Raise ``AssertionError`` naming the invariant that does not hold. O(size of the pool)."""
    _audit_books(state)
    _audit_counts(state)
    for slot in state.fleet.slots:
        _audit_slot(state, slot)
    _audit_queue(state, now)
    assert state.alarm <= state.next_due(now), f"the keeper sleeps until {state.alarm}, due is {state.next_due(now)}"


def _audit_books(state: PoolState[R]) -> None:
    books = state.books
    assert books.started == books.settled() + len(state.queue), (
        f"{books.started} checkouts were started, but {books.settled()} are settled and {len(state.queue)} wait"
    )
    fleet = state.fleet
    open_now = len(fleet.slots) - fleet.opening
    assert fleet.opened == fleet.closed + fleet.closing + open_now, (
        f"{fleet.opened} resources were opened, but {fleet.closed} closed, {fleet.closing} closing, {open_now} open"
    )


def _audit_counts(state: PoolState[R]) -> None:
    fleet = state.fleet
    states = Counter(slot.state for slot in fleet.slots)
    sound = Counter(slot.state for slot in fleet.slots if slot.doom is None)
    for name, kept, counted in (
        ("opening", fleet.opening, states[SlotState.OPENING]),
        ("pinging", fleet.pinging, states[SlotState.PINGING]),
        ("resetting", fleet.resetting, states[SlotState.RESETTING]),
        ("retired", fleet.retired, states[SlotState.RETIRED]),
        ("coming_open", fleet.coming_open, sound[SlotState.OPENING]),
        ("coming_pings", fleet.coming_pings, sound[SlotState.PINGING]),
        ("coming_resets", fleet.coming_resets, sound[SlotState.RESETTING]),
        ("idle", fleet.idle, states[SlotState.IDLE]),
        ("closing and closed in slots", 0, states[SlotState.CLOSING] + states[SlotState.CLOSED]),
    ):
        assert kept == counted, f"{name} is kept as {kept}, but there are {counted}"


def _audit_slot(state: PoolState[R], slot: Slot[R]) -> None:
    busy = slot.state in {SlotState.LEASED, SlotState.RETIRED}
    assert (slot.leases > 0) == busy, f"{slot} has leases in the wrong state"
    assert slot.leases >= 0, f"{slot} has fewer leases than none"
    if slot.state is SlotState.LEASED:
        assert slot.doom is None, f"{slot} can be lent although it is doomed"
    if slot.state is SlotState.RETIRED:
        assert slot.doom is not None, f"{slot} is retired for no reason"
    if slot.state is SlotState.IDLE:
        assert slot.doom is None, f"{slot} is idle although it is doomed"
        assert not slot.unclean, f"{slot} is idle although it needs a reset"
    assert (slot in state.fleet.rack) == _belongs_in_rack(slot), f"{slot} is in the rack, or not, against the rules"


def _belongs_in_rack(slot: Slot[R]) -> bool:
    if slot.doom is not None or slot.unclean:
        return False
    if slot.state in {SlotState.IDLE, SlotState.PINGING}:
        return True
    return slot.state is SlotState.LEASED and slot.leases < slot.capacity


def _audit_queue(state: PoolState[R], now: float) -> None:
    queue = state.queue
    if len(queue) > state.fleet.coming_back and not state.sizing.paused:
        assert not state.fleet.rack.can_lend(), f"{len(queue)} clients wait beside a slot that can be lent"
        fleet = state.fleet
        hope = fleet.slots or fleet.closing or state.supply.failures
        assert hope or not state.sizing.shut, "clients wait for nothing"
    since = [waiter.since for waiter in queue]
    assert since == sorted(since), "the queue is out of order"
    assert all(waiter.pending and waiter.slot is None for waiter in queue), "a settled waiter is queued"
    for rack in _racks(state):
        for load, bucket in rack.by_load.items():
            assert all(slot.leases == load for slot in bucket), f"the bucket of load {load} holds other slots"
    unserved = queue and state.fleet.size < state.sizing.max_size and not state.sizing.paused
    if unserved and not state.fleet.opening and not state.fleet.coming_back and not state.fleet.retired:
        assert state.alarm <= state.supply.retry_at or now >= state.supply.retry_at, "nobody opens for who waits"


def _racks(state: PoolState[R]) -> Iterable[SharedRack[R]]:
    rack = state.fleet.rack
    return (rack,) if isinstance(rack, SharedRack) else ()
