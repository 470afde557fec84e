"""Room for resources: without limit, or shared fairly between the pools of a keyed pool."""

from __future__ import annotations

from collections import OrderedDict
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from ._openers import Openers

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._slot import Slot
    from ._state import PoolState


FAIR_DIFFERENCE: Final = 2
"""By how many resources sizes must differ before room moves: a difference of one would only change sides."""


class Neighbour(Protocol):
    """A pool that shares a budget with others."""

    @property
    def state(self) -> PoolState[Any]:
        """Its pure part."""
        ...

    @property
    def now(self) -> Callable[[], float]:
        """The clock."""
        ...

    def evict(self, slot: Slot[Any]) -> None:
        """Close an idle resource, or stop opening one, in favour of another pool."""
        ...

    def reconsider(self) -> None:
        """Open what is needed, for there is room."""
        ...


class Quota:
    """One pool's room for resources. This one has no limit; `Share` has."""

    limited = False
    """Whether this pool's idle resources are of interest to others."""

    def take(self) -> bool:
        """Take room for one resource, or say no; then the pool is called again when there is room."""
        return True

    limit: float = inf
    """How much room there is in all."""

    def give_back(self, *, evicted: bool) -> None:
        """Return the room of one resource, which had to make it for another pool or not."""

    def became_idle(self, since: float) -> None:
        """Note that this pool's oldest idle resource is idle ``since``."""

    def leave(self) -> None:
        """Stop asking for room: the pool is closing."""

    def describe(self) -> str:
        """Return what an error should say about room."""
        return ""

    def claims(self) -> bool:
        """Tell whether the resource that comes free must make room for another pool; it is then evicted."""
        return False

    def settle(self) -> None:
        """Give what room there is to the pools that wait for it; called when an event of this pool is over."""


@final
class Budget:
    """Room for ``max_total`` resources.

    A pool that finds no room is hungry. The neediest is fed first: of those with the fewest resources, the one that has
    been hungry longest. If there is no room, the resource that has been idle longest under another key is closed for
    it; if none is idle, the largest pool that is opening some gives up an attempt, so that an address which does not
    answer keeps nobody from the others; and a resource that is checked in has to make room if its own pool has no
    better claim to it (`Share.claims`).

    Invariants, once settled:
        0 <= used <= max_total
        nobody is hungry while there is room, or while another key has a resource idle that it need not keep
        no client waits under a key that is hungry while one with two resources more, or more than two, opens another,
            unless room is being made already
        every hungry share is in the line of its size, the longest hungry first; no line is empty
        every pool with an idle resource is in the heap, with a time not after its oldest one became idle
    """

    def __init__(self, max_total: int) -> None:
        self.max_total = max_total
        self.used = 0
        self.making_room = 0
        """Evicted resources whose room has not come back: under a lease still, or closing where that counts."""
        self._hungry: dict[int, OrderedDict[Share, None]] = {}
        self._unsettled = False
        self._settling = False
        self._fed: Share | None = None
        self._idle: list[tuple[float, int, Share]] = []
        self._openers = Openers()
        self._serial = count()

    def take(self, share: Share) -> bool:
        if self.used < self.max_total and (not self._hungry or share is self._fed):
            self.used += 1
            self._openers.add(share)
            return True
        self._add(share)
        self._unsettled = True
        return False

    def give_back(self, *, evicted: bool) -> None:
        self.used -= 1
        self.making_room -= evicted
        self._unsettled = True

    def needs_room(self) -> bool:
        """Tell whether more pools are hungry than resources are making room already."""
        return self.making_room < sum(map(len, self._hungry.values()))

    def became_idle(self, share: Share, since: float) -> None:
        if not share.listed:
            share.listed = True
            heappush(self._idle, (since, next(self._serial), share))
        self._unsettled = True

    def leave(self, share: Share) -> None:
        """Forget a pool that is closing."""
        if share.hungry_at is not None:
            line = self._hungry[share.hungry_at]
            del line[share]
            if not line:
                del self._hungry[share.hungry_at]
            share.hungry_at = None

    def neediest(self) -> Share | None:
        """Return who is to be fed first: a pool with clients that wait if there is one, else one for ``min_size``."""
        return self.neediest_with_clients() or self._neediest(lambda _: True)

    def neediest_with_clients(self, *, but: Share | None = None) -> Share | None:
        """Return who is to be fed first of those with clients that wait."""
        return self._neediest(lambda share: share is not but and bool(share.pool.state.queue))

    def _neediest(self, counts: Callable[[Share], bool]) -> Share | None:
        for size in sorted(self._hungry):
            while (share := next(filter(counts, self._hungry.get(size, ())), None)) is not None:
                if share.pool.state.sizing.wants_more():
                    return share
                self.leave(share)
        return None

    def settle(self) -> None:
        """Feed the hungry while there is room. What this sets off in their pools is settled here, too."""
        if self._settling:
            return
        self._settling = True
        try:
            while self._unsettled:
                self._unsettled = False
                while (share := self.neediest()) is not None and self._feed(share):
                    pass
        finally:
            self._settling = False

    def _add(self, share: Share) -> None:
        if share.hungry_at != share.size:
            self.leave(share)
            share.hungry_at = share.size
            self._hungry.setdefault(share.size, OrderedDict())[share] = None

    def _feed(self, share: Share) -> bool:
        """Give room to ``share``; false if there is none."""
        if share.pool.state.sizing.would_open(share.pool.now()):
            if self.used >= self.max_total and self.needs_room() and not self._evict_for(share):
                self._stop_an_opening_for(share)
            if self.used >= self.max_total:  # nothing to evict, or it counts until it is closed
                return False
        self.leave(share)
        self._fed = share
        try:
            share.pool.reconsider()
        finally:
            self._fed = None
        return True

    def _evict_for(self, hungry: Share) -> bool:
        """Close the resource that has been idle longest under another key; tell whether there was one."""
        evicted = False
        kept: list[tuple[float, int, Share]] = []
        while self._idle:
            since, serial, share = heappop(self._idle)
            oldest = share.pool.state.fleet.rack.oldest()
            if oldest is None or not share.can_spare:
                share.listed = False
            elif oldest.idle_since > since:
                heappush(self._idle, (oldest.idle_since, serial, share))
            else:
                kept.append((since, serial, share))
                if share is not hungry:
                    self.making_room += 1
                    share.pool.evict(oldest)
                    evicted = True
                    break
        for entry in kept:
            heappush(self._idle, entry)
        return evicted

    def _stop_an_opening_for(self, hungry: Share) -> None:
        """Give up the latest attempt of the largest pool that is opening resources, if it has two more than this one.

        Who waits for it goes on waiting. Room that is being made already may all be for this one.
        """
        share = self._openers.largest()
        size = hungry.size + self.making_room
        if share is None or share.lasting - size < FAIR_DIFFERENCE or not share.can_spare:
            return
        if hungry.pool.state.queue:
            self.making_room += 1
            share.pool.evict(share.pool.state.fleet.latest_opening())


@final
class Share(Quota):
    """One pool's part in a budget."""

    limited = True

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.limit = budget.max_total
        self.pool: Neighbour
        """Whose share it is; set as soon as it exists."""
        self.listed = False
        """The budget's heap has an entry for this pool."""
        self.hungry_at: int | None = None
        """In which line of the hungry it stands: its size when it joined."""
        self.opener_size: int | None = None
        """Under which size the budget's list of openers has it."""

    @property
    def can_spare(self) -> bool:
        """Whether the pool has more resources than it keeps unasked."""
        return self.size > self.pool.state.sizing.min_size

    @property
    def lasting(self) -> int:
        """How many resources the pool has, without those whose opening was given up."""
        fleet = self.pool.state.fleet
        return len(fleet.slots) - fleet.opening + fleet.coming_open

    @property
    def is_opening(self) -> bool:
        """Whether a resource is being opened that will be of use."""
        return self.pool.state.fleet.coming_open > 0

    @property
    def size(self) -> int:
        return len(self.pool.state.fleet.slots)

    def take(self) -> bool:
        return self._budget.take(self)

    def give_back(self, *, evicted: bool) -> None:
        self._budget.give_back(evicted=evicted)

    def became_idle(self, since: float) -> None:
        self._budget.became_idle(self, since)

    def leave(self) -> None:
        self._budget.leave(self)

    def describe(self) -> str:
        return f"; {self._budget.used} of max_total ({self._budget.max_total}) in use under all keys"

    def settle(self) -> None:
        self._budget.settle()

    def claims(self) -> bool:
        """Tell whether a resource that comes free here must make room for the neediest other pool; it is then evicted.

        It must if nobody waits for it here; or if the other has at least two resources fewer, so that sizes even out
        and then stay; or if the other has none, and its client has waited longer than ours: keys take turns when there
        are more of them than room.
        """
        if not self.can_spare or not self._budget.needs_room():
            return False
        other = self._budget.neediest_with_clients(but=self)
        if other is None or not self._must_yield_to(other):
            return False
        self._budget.making_room += 1
        return True

    def _must_yield_to(self, other: Share) -> bool:
        ours = self.pool.state.queue
        if not ours or self.size - other.size >= FAIR_DIFFERENCE:
            return True
        return other.size == 0 and other.pool.state.queue.head().since < ours.head().since
