"""Leases without a block, and the watch over the tasks that own them."""

from __future__ import annotations

import inspect
import weakref
from typing import TYPE_CHECKING, Generic, TypeVar, final

import trio
from trio.lowlevel import Task, add_instrument, remove_instrument

from ._lease import Lease

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._engine import Engine

R = TypeVar("R")


@final
class AcquiredLease(Lease[R]):
    """A lease that ends when somebody calls `release`.

    If its owner's task ends first, or everybody loses it, the pool takes the resource back, removes it, and says in a
    ``ResourceWarning`` where it was acquired.

    Invariant: while it is held the pool refers to it by ``ref`` only, or the collector could not notice its loss.
    """

    __slots__ = ("__weakref__", "_asked_at", "owner", "ref", "where")

    def __init__(self, engine: Engine[R], request: object, timeout: float, owner: Task | None, where: str) -> None:
        super().__init__(engine, request, timeout)
        self._asked_at = engine.now()
        self.owner = owner
        self.where = where
        self.ref: weakref.ref[AcquiredLease[R]] = weakref.ref(self)

    def __del__(self) -> None:
        # The collector runs anywhere, even in the middle of a change of the pool's state: it only reports.
        if self.slot is not None:
            self._engine.supervision.report_lost(self)

    def _begin(self) -> None:
        super()._begin()
        held = self._engine.held
        held[self.ref] = held.pop(self)
        self._engine.supervision.acquired(self, self.since - self._asked_at)

    def _end(self, error: BaseException | None) -> None:
        used = self.held_for
        held = self._engine.held
        held[self] = held.pop(self.ref)
        super()._end(error)
        self._engine.supervision.released(self, used, error)


@final
class OwnerWatch(trio.abc.Instrument, Generic[R]):
    """Hears of tasks that end while they own leases.

    It is installed with the first such lease and stays until the pool closes: to install it costs more than a lease,
    and to have it costs one look into a dictionary when a task ends.
    """

    def __init__(self, report_lost: Callable[[AcquiredLease[R]], None]) -> None:
        self._report_lost = report_lost
        self._leases: dict[Task, set[weakref.ref[AcquiredLease[R]]]] = {}
        self._installed = False

    def add(self, owner: Task, lease: AcquiredLease[R]) -> None:
        if has_ended(owner):
            self._report_lost(lease)
        if not self._installed:
            add_instrument(self)
            self._installed = True
        self._leases.setdefault(owner, set()).add(lease.ref)

    def discard(self, owner: Task, lease: AcquiredLease[R]) -> None:
        owned = self._leases[owner]
        owned.remove(lease.ref)
        if not owned:
            del self._leases[owner]

    def close(self) -> None:
        """Hear nothing any more."""
        if self._installed:
            remove_instrument(self)
            self._installed = False

    def task_exited(self, task: Task) -> None:
        for ref in self._leases.get(task, ()):
            if (lease := ref()) is not None:
                self._report_lost(lease)


def has_ended(task: Task) -> bool:
    """Tell whether ``task`` has run to its end."""
    return inspect.getcoroutinestate(task.coro) == inspect.CORO_CLOSED
