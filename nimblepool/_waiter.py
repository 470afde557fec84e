"""A queued checkout, and the queue it stands in."""

from __future__ import annotations

from collections import OrderedDict, deque
from enum import Enum
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio.lowlevel import Task

    from ._slot import Slot

R = TypeVar("R")


@final
class Refusal(Enum):
    """Why a waiter left the queue without a lease; the shell turns it into an exception."""

    TIMED_OUT = "timed out"
    NOTHING_IDLE = "nothing idle"
    FULL = "queue full"
    SHED = "shed"
    CLOSED = "closed"
    UNAVAILABLE = "unavailable"


class Client(Protocol[R]):
    """Whom a waiter waits for."""

    def granted(self, slot: Slot[R], waiter: Waiter[R]) -> None:
        """Take the slot that was granted to ``waiter``."""
        ...


@final
class Waiter(Generic[R]):
    """One client in the queue. It is settled exactly once: by a slot or by an error.

    Invariants:
        pending if and only if the queue holds it
        not pending implies that it was cancelled, or that exactly one of slot, outcome is not None
    """

    __slots__ = ("client", "deadline", "outcome", "pending", "request", "settled_at", "since", "slot", "task")

    def __init__(self, request: object, since: float, deadline: float, client: Client[R] | None = None) -> None:
        self.request = request
        self.since = since
        self.deadline = deadline
        self.client = client
        self.task: Task | None = None
        """The shell's task, once it is parked."""
        self.slot: Slot[R] | None = None
        self.outcome: Refusal | BaseException | None = None
        self.pending = False
        self.settled_at: float
        """When it was granted its slot."""


@final
class WaitQueue(Generic[R]):
    """Waiters, first come, first served; every operation is O(1) amortized, or O(log n) for a deadline of its own.

    Waiters with the pool's default timeout expire in the order in which they came: one lane suffices for them. The
    others stand in a heap. Both are pruned lazily, since a waiter is seldom still pending when its deadline comes.
    """

    def __init__(self, default_timeout: float) -> None:
        self._default_timeout = default_timeout
        self.line: OrderedDict[Waiter[R], None] = OrderedDict()
        """The waiters themselves; empty is false."""
        self._lane: deque[Waiter[R]] = deque()
        self._heap: list[tuple[float, int, Waiter[R]]] = []
        self._serial = count()

    def __len__(self) -> int:
        return len(self.line)

    def __iter__(self) -> Iterator[Waiter[R]]:
        return iter(self.line)

    def head(self) -> Waiter[R]:
        """Return the waiter that is served next; the queue must not be empty."""
        return next(iter(self.line))

    def push(self, waiter: Waiter[R]) -> None:
        waiter.pending = True
        self.line[waiter] = None
        if waiter.deadline == waiter.since + self._default_timeout:
            if self._lane and not self._lane[0].pending:
                self._prune_lane()
            self._lane.append(waiter)
        elif waiter.deadline < inf:
            heappush(self._heap, (waiter.deadline, next(self._serial), waiter))
            self._compact()

    def remove(self, waiter: Waiter[R]) -> None:
        waiter.pending = False
        del self.line[waiter]

    def abandon(self, waiter: Waiter[R]) -> None:
        """Remove a waiter that gave up; whoever is served leaves the lane from its front, these leave holes in it."""
        self.remove(waiter)
        self._prune_lane()

    def next_deadline(self) -> float:
        """Return when the next waiter expires, or infinity."""
        self._prune_lane()
        while self._heap and not self._heap[0][2].pending:
            heappop(self._heap)
        return min(
            self._lane[0].deadline if self._lane else inf,
            self._heap[0][0] if self._heap else inf,
        )

    def expired(self, now: float) -> Iterator[Waiter[R]]:
        """Yield the pending waiters whose deadline has come; the caller removes each before it asks for the next."""
        while self.next_deadline() <= now:
            if self._lane and self._lane[0].deadline <= now:
                yield self._lane[0]
            else:
                yield self._heap[0][2]

    def _prune_lane(self) -> None:
        while self._lane and not self._lane[0].pending:
            self._lane.popleft()
        if len(self._lane) > 2 * len(self.line) + 64:
            self._lane = deque(waiter for waiter in self._lane if waiter.pending)

    def _compact(self) -> None:
        if len(self._heap) > 2 * len(self.line) + 64:
            self._heap = [entry for entry in self._heap if entry[2].pending]
            heapify(self._heap)
