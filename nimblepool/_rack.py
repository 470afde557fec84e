"""The rack: the slots that can be lent now."""

from __future__ import annotations

from collections import OrderedDict
from heapq import heappop, heappush
from itertools import takewhile
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from ._slot import IDLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._slot import Slot

R = TypeVar("R")
Order = Literal["lifo", "fifo"]


class Rack(Generic[R]):
    """The idle slots, the longest idle leftmost. ``order`` says from which end the next one is lent.

    A slot that is being pinged keeps its place here and is passed over, so that a ping neither rejuvenates a resource
    nor changes whose turn it is.
    """

    def __init__(self, order: Order) -> None:
        self.idle: OrderedDict[Slot[R], None] = OrderedDict()
        self._newest_first = order == "lifo"

    def take(self) -> Slot[R] | None:
        """Remove and return the slot to lend next, if there is one."""
        if not self.idle:
            return None
        slot, _ = self.idle.popitem(last=self._newest_first)
        return slot if slot.state is IDLE else self._take_past(slot)

    def _take_past(self, slot: Slot[R]) -> Slot[R] | None:
        pinging = [slot]
        found = None
        while self.idle and found is None:
            slot, _ = self.idle.popitem(last=self._newest_first)
            if slot.state is IDLE:
                found = slot
            else:
                pinging.append(slot)
        for slot in reversed(pinging):
            self.put_back(slot)
        return found

    def put(self, slot: Slot[R]) -> None:
        """Add ``slot``, which has just become lendable."""
        self.idle[slot] = None

    def put_back(self, slot: Slot[R]) -> None:
        """Undo ``take``: ``slot`` gets its place again."""
        self.idle[slot] = None
        self.idle.move_to_end(slot, last=self._newest_first)

    def order(self, slot: Slot[R]) -> None:
        """Move ``slot``, the last that was put here, to where it belongs by the time at which it became idle."""
        later = list(takewhile(lambda other: other is slot or other.idle_since > slot.idle_since, reversed(self.idle)))
        for other in reversed(later):
            if other is not slot:
                self.idle.move_to_end(other)

    def discard(self, slot: Slot[R]) -> None:
        """Take ``slot`` out, wherever it is, if it is here."""
        self.idle.pop(slot, None)

    def oldest(self) -> Slot[R] | None:
        """Return the slot that has been idle longest and is not being pinged; O(1) but for pings under way."""
        return next((slot for slot in self.idle if slot.state is IDLE), None)

    def resting(self) -> int:
        """Return how many slots without a lease are here."""
        return len(self.idle)

    def __iter__(self) -> Iterator[Slot[R]]:
        return iter(self.idle)

    def __contains__(self, slot: Slot[R]) -> bool:
        return slot in self.idle

    def can_lend(self) -> bool:
        """Tell whether ``take`` would find a slot."""
        for slot in self.idle:  # noqa: SIM110 - `any` would make a generator, for what is the first slot nearly always
            if slot.state is IDLE:
                return True
        return False


class SharedRack(Rack[R]):
    """Slots that carry several leases: the least loaded is lent first. O(log capacity) an operation.

    An idle slot whose capacity is 0 at present is ``barred``: it is kept apart and not lent.

    Invariants:
        slot in by_load[k] implies slot.leases == k > 0 at the time it was put
        every k with by_load[k] not empty is in the heap, and no load is in it twice
    """

    def __init__(self, order: Order) -> None:
        super().__init__(order)
        self.barred: OrderedDict[Slot[R], None] = OrderedDict()
        self.by_load: dict[int, OrderedDict[Slot[R], None]] = {}
        self._loads: list[int] = []
        self._listed: set[int] = set()

    def take(self) -> Slot[R] | None:
        if self.idle and (slot := super().take()) is not None:
            return slot
        load = self._least()
        if load is None:
            return None
        slot, _ = self.by_load[load].popitem(last=self._newest_first)
        return slot

    def put(self, slot: Slot[R]) -> None:
        if slot.capacity == 0:
            self.barred[slot] = None
            return
        if slot.leases == 0:
            self.idle[slot] = None
            return
        load = slot.leases
        bucket = self.by_load.get(load)
        if bucket is None:
            bucket = self.by_load[load] = OrderedDict()
        if load not in self._listed:
            self._listed.add(load)
            heappush(self._loads, load)
        bucket[slot] = None

    def put_back(self, slot: Slot[R]) -> None:
        if slot.leases == 0:
            super().put_back(slot)
        else:
            self.put(slot)

    def discard(self, slot: Slot[R]) -> None:
        """Take ``slot`` out; its ``leases`` must still be what they were when it was put."""
        if slot.leases == 0:
            super().discard(slot)
            self.barred.pop(slot, None)
        elif (bucket := self.by_load.get(slot.leases)) is not None:
            bucket.pop(slot, None)

    def resting(self) -> int:
        return len(self.idle) + len(self.barred)

    def oldest(self) -> Slot[R] | None:
        oldest = super().oldest()
        barred = next((slot for slot in self.barred if slot.state is IDLE), None)
        if oldest is None or (barred is not None and barred.idle_since < oldest.idle_since):
            return barred
        return oldest

    def __iter__(self) -> Iterator[Slot[R]]:
        yield from self.idle
        yield from self.barred

    def _least(self) -> int | None:
        while self._loads and not self.by_load[self._loads[0]]:
            self._listed.remove(heappop(self._loads))
        return self._loads[0] if self._loads else None

    def __contains__(self, slot: Slot[R]) -> bool:
        return slot in self.idle or slot in self.barred or slot in self.by_load.get(slot.leases, ())

    def can_lend(self) -> bool:
        return super().can_lend() or self._least() is not None
