"""Room for resources: without limit, or shared fairly between the pools of a keyed pool."""

from __future__ import annotations

from collections import OrderedDict
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from ._engine import Engine


class Quota:
    """One pool's room for resources. This one has no limit; `Share` has."""

    limited = False
    """Whether this pool's idle resources are of interest to others."""

    def take(self) -> bool:
        """Take room for one resource, or say no; then the pool is called again when there is room."""
        return True

    def give_back(self) -> None:
        """Return the room of one resource."""

    def became_idle(self, now: float) -> None:
        """Note that a resource of this pool is idle."""

    def claims(self) -> bool:
        """Tell whether the resource that is being checked in must make room for another pool."""
        return False

    def settle(self) -> None:
        """Give what room there is to the pools that wait for it; called when an event of this pool is over."""


@final
class Budget:
    """Room for ``max_total`` resources.

    A pool that finds no room joins the hungry. The first of them gets the next room; if there is none, the resource
    that has been idle longest under another key is closed for it; if none is idle either, one that is checked in has to
    make room if its own pool has no better claim to it (`Share.claims`). A pool that was fed goes to the end.

    Invariants, once settled:
        0 <= used <= max_total
        nobody is hungry while there is room, or while another key has a resource idle that it need not keep
        every pool with an idle resource is in the heap, with a time not after its oldest one became idle
    """

    def __init__(self, max_total: int) -> None:
        self.max_total = max_total
        self.used = 0
        self.hungry: OrderedDict[Share, None] = OrderedDict()
        self._unsettled = False
        self._settling = False
        self._fed: Share | None = None
        self._idle: list[tuple[float, int, Share]] = []
        self._serial = count()

    def take(self, share: Share) -> bool:
        if self.used < self.max_total and (not self.hungry or share is self._fed):
            self.used += 1
            return True
        self.hungry.setdefault(share)
        self._unsettled = True
        return False

    def give_back(self) -> None:
        self.used -= 1
        self._unsettled = True

    def became_idle(self, share: Share, since: float) -> None:
        if not share.listed:
            share.listed = True
            heappush(self._idle, (since, next(self._serial), share))
        self._unsettled = True

    def leave(self, share: Share) -> None:
        """Forget a pool that is closing."""
        self.hungry.pop(share, None)

    def settle(self) -> None:
        """Feed the hungry, in turn, while there is room. What this sets off in their pools is settled here, too."""
        if self._settling:
            return
        self._settling = True
        try:
            while self._unsettled:
                self._unsettled = False
                while self.hungry and self._feed(next(iter(self.hungry))):
                    pass
        finally:
            self._settling = False

    def _feed(self, share: Share) -> bool:
        """Serve the first of the hungry; false if there is no room for it."""
        if share.engine.state.sizing.would_open(share.engine.now()):
            if self.used >= self.max_total:
                self._evict_for(share)
            if self.used >= self.max_total:  # nothing to evict, or it counts until it is closed
                return False
        del self.hungry[share]
        self._fed = share
        share.engine.reconsider()
        self._fed = None
        return True

    def _evict_for(self, hungry: Share) -> None:
        """Close the resource that has been idle longest under another key."""
        kept: list[tuple[float, int, Share]] = []
        while self._idle:
            since, serial, share = heappop(self._idle)
            oldest = share.engine.state.fleet.rack.oldest()
            if oldest is None:
                share.listed = False
                continue
            kept.append((oldest.idle_since, serial, share))
            if oldest.idle_since > since:
                heappush(self._idle, kept.pop())
            elif share is not hungry and share.can_spare:
                share.engine.evict(oldest)
                break
        for entry in kept:
            heappush(self._idle, entry)


@final
class Share(Quota):
    """One pool's part in a budget."""

    limited = True

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.engine: Engine[Any]
        """Whose share it is; set as soon as the engine exists."""
        self.listed = False
        """The budget's heap has an entry for this pool."""

    @property
    def can_spare(self) -> bool:
        """Whether the pool has more resources than it keeps unasked."""
        return self.size > self.engine.state.sizing.min_size

    @property
    def size(self) -> int:
        return len(self.engine.state.fleet.slots)

    def take(self) -> bool:
        return self._budget.take(self)

    def give_back(self) -> None:
        self._budget.give_back()

    def became_idle(self, now: float) -> None:
        self._budget.became_idle(self, now)

    def settle(self) -> None:
        self._budget.settle()

    def claims(self) -> bool:
        """Tell whether a resource that is checked in here must make room for the first pool that is hungry.

        It must if nobody waits for it here; or if the other pool has at least two resources fewer, so that sizes even
        out and then stay; or if the other has none, and its client has waited longer than ours: keys take turns when
        there are more of them than room.
        """
        other = next((share for share in self._budget.hungry if share is not self and share.engine.state.queue), None)
        if other is None or not self.can_spare or self.engine.state.fleet.retired:  # one at a time
            return False
        ours = self.engine.state.queue
        if not ours or self.size - other.size >= 2:  # noqa: PLR2004 - a difference of one would only change sides
            return True
        return other.size == 0 and other.engine.state.queue.head().since < ours.head().since
