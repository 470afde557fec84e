"""A queued checkout, and the queue it stands in."""

from __future__ import annotations

from collections import deque
from enum import Enum
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Generic, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Iterator

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


class Waiter(Generic[R]):
    """A client that asks for a slot, and stands in the queue if none is free. It is settled exactly once.

    The shell's `Lease` is one: what waits for a slot is what has it afterwards.

    Invariants:
        pending if and only if the queue holds it
        slot is not None only while it has a lease; then outcome is None
        once settled without a slot, outcome says why, until the shell has told the client
    """

    __slots__ = ("deadline", "outcome", "pending", "request", "since", "slot", "ticket", "timeout")

    since: float
    """When it began to wait; once it has a slot, when it got that."""
    deadline: float
    """Until when it waits, set when it queues."""
    pending: bool
    """Set when it queues."""
    ticket: Ticket[R] | None
    """Its place in the heap of deadlines, if it has one there; set when it queues."""

    def __init__(self, request: object, timeout: float) -> None:
        self.request = request
        self.timeout = timeout
        self.slot: Slot[R] | None = None
        self.outcome: Refusal | BaseException | None = None


@final
class Ticket(Generic[R]):
    """A waiter's place in the heap of deadlines. It outlasts the waiter there, and must not keep a lease alive."""

    __slots__ = ("waiter",)

    def __init__(self, waiter: Waiter[R]) -> None:
        self.waiter: Waiter[R] | None = waiter


@final
class WaitQueue(Generic[R]):
    """Waiters, first come, first served; every operation is O(1) amortized, or O(log n) for a deadline of its own.

    Waiters with the pool's default timeout expire in the order in which they came: one lane suffices for them. The
    others have tickets in a heap. Who leaves from the middle leaves a hole, and holes are removed when they reach the
    front or outnumber the waiters.

    Invariants:
        line lists all waiters in order, lane those with the default timeout; besides, both have holes
        neither begins with a hole, so that an empty line means that nobody waits
        len(self) = how many are pending
    """

    def __init__(self, default_timeout: float) -> None:
        self._default_timeout = default_timeout
        self.line: deque[Waiter[R]] = deque()
        self._lane: deque[Waiter[R]] = deque()
        self._heap: list[tuple[float, int, Ticket[R]]] = []
        self._serial = count()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Waiter[R]]:
        return (waiter for waiter in self.line if waiter.pending)

    def head(self) -> Waiter[R]:
        """Return the waiter that is served next; the queue must not be empty."""
        return self.line[0]

    def push(self, waiter: Waiter[R], now: float) -> None:
        waiter.since = now
        waiter.deadline = now + waiter.timeout
        waiter.pending = True
        waiter.ticket = None
        self._length += 1
        self.line.append(waiter)
        if waiter.timeout == self._default_timeout:
            self._lane.append(waiter)
        elif waiter.deadline < inf:
            waiter.ticket = Ticket(waiter)
            self._compact_heap()
            heappush(self._heap, (waiter.deadline, next(self._serial), waiter.ticket))

    def pop(self) -> Waiter[R]:
        """Remove and return the waiter at the head; the queue must not be empty."""
        waiter = self.line.popleft()
        if self._lane and self._lane[0] is waiter:
            self._lane.popleft()
        self.remove(waiter)
        return waiter

    def remove(self, waiter: Waiter[R]) -> None:
        """Remove ``waiter``, wherever it stands."""
        waiter.pending = False
        self._length -= 1
        if waiter.ticket is not None:
            waiter.ticket.waiter = None
        if len(self.line) != self._length:
            self._close_gaps(self.line)
            self._close_gaps(self._lane)

    def next_deadline(self) -> float:
        """Return when the next waiter expires, or infinity."""
        while self._heap and self._heap[0][2].waiter is None:
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
                waiter = self._heap[0][2].waiter
                assert waiter is not None, "bug: the heap begins with a hole"
                yield waiter

    def _close_gaps(self, row: deque[Waiter[R]]) -> None:
        while row and not row[0].pending:
            row.popleft()
        if len(row) > 2 * self._length + 64:
            rest = [waiter for waiter in row if waiter.pending]
            row.clear()
            row.extend(rest)

    def _compact_heap(self) -> None:
        if len(self._heap) > 2 * self._length + 64:
            self._heap = [entry for entry in self._heap if entry[2].waiter is not None]
            heapify(self._heap)
