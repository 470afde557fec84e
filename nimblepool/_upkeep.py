"""When the passing of time asks something of a slot: age, idleness, pings."""

from __future__ import annotations

from heapq import heapify, heappop, heappush, nsmallest
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Generic, TypeVar, final

from ._check import or_no_limit
from ._slot import SlotState
from ._verdict import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from ._options import Settings
    from ._rack import Rack
    from ._slot import Slot

R = TypeVar("R")

_AGE_JITTER = 0.1
_PING_SLACK = 0.1
"""Pings that fall due within this part of ``ping_every`` go with the first of them: one look over the idle slots
serves many, and there are at most ten looks per ``ping_every``."""


@final
class Upkeep(Generic[R]):
    """What is due when. It changes nothing of a slot but the time at which it expires.

    Invariants:
        every slot with a finite expires_at in the future has an entry with that time in the heap
        no idle slot falls due for a ping before next_ping
    """

    def __init__(self, settings: Settings, rack: Rack[R], rng: Random) -> None:
        self._max_age = or_no_limit(settings.max_age)
        self._max_idle = or_no_limit(settings.max_idle)
        self._ping_every = or_no_limit(settings.ping_every)
        self._ping_batch = settings.ping_batch
        self._rack = rack
        self._rng = rng
        self._expiries: list[tuple[float, int, Slot[R]]] = []
        self._serial = count()
        self.next_ping = inf
        self.patience = min(self._max_idle, self._ping_every)
        """No slot falls due for being idle earlier than this after it became idle."""

    def expire_at(self, slot: Slot[R], when: float, expiry: Reason, slots: int) -> None:
        """Let ``slot`` expire at ``when`` for the reason ``expiry``, unless it does so before."""
        if when >= slot.expires_at:
            return
        slot.expires_at = when
        slot.expiry = expiry
        heappush(self._expiries, (when, next(self._serial), slot))
        if len(self._expiries) > 2 * slots + 64:
            self._expiries = [entry for entry in self._expiries if self._stands(entry)]
            heapify(self._expiries)

    def opened(self, slot: Slot[R], now: float, slots: int) -> None:
        """Draw the age at which the new resource is retired: ``max_age``, or up to 10 % less."""
        if self._max_age < inf:
            age = self._max_age * (1 - _AGE_JITTER * self._rng.random())
            self.expire_at(slot, now + age, Reason.AGE, slots)

    def next_expiry(self) -> float:
        while self._expiries and not self._stands(self._expiries[0]):
            heappop(self._expiries)
        return self._expiries[0][0] if self._expiries else inf

    def expired(self, now: float) -> Iterator[Slot[R]]:
        """Yield the slots whose time has come, each once."""
        while self.next_expiry() <= now:
            yield heappop(self._expiries)[2]

    def next_idle(self) -> float:
        """Return when the slot that is idle longest reaches ``max_idle``."""
        if self._max_idle == inf or (slot := self._rack.oldest()) is None:
            return inf
        return slot.idle_since + self._max_idle

    def became_idle(self, now: float) -> None:
        """Note that a slot was used or checked at ``now`` and is idle."""
        self.next_ping = min(self.next_ping, now + self._ping_every)

    def is_pinging_enough(self, running: int) -> bool:
        return running >= self._ping_batch

    def pings_due(self, now: float, running: int) -> list[Slot[R]]:
        """Return the slots to ping now, the longest unchecked first, and note when the next one is due."""
        if now < self.next_ping or self.is_pinging_enough(running):
            return []
        early = now + _PING_SLACK * self._ping_every
        idle = [slot for slot in self._rack if slot.state is SlotState.IDLE]
        due = [slot for slot in idle if slot.checked_at + self._ping_every <= early]
        chosen = nsmallest(self._ping_batch - running, due, key=lambda slot: slot.checked_at)
        rest = set(idle).difference(chosen)
        self.next_ping = min((slot.checked_at for slot in rest), default=inf) + self._ping_every
        return chosen

    @staticmethod
    def _stands(entry: tuple[float, int, Slot[R]]) -> bool:
        when, _, slot = entry
        return slot.expires_at == when and slot.state not in {SlotState.CLOSING, SlotState.CLOSED}
