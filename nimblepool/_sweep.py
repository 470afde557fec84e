"""Cancelling a scenario everywhere it can be cancelled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, final

import trio
from trio.lowlevel import add_instrument, current_task, remove_instrument

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Edge = Literal["before", "after"]


@final
class _Canceller(trio.abc.Instrument):
    """Cancels ``scope`` at the nth step of a task: just before it runs on, or just after it has stopped to wait."""

    def __init__(self, task: trio.lowlevel.Task, step: int, edge: Edge, scope: trio.CancelScope) -> None:
        self._task = task
        self._steps_left = step
        self._edge = edge
        self._scope = scope

    @property
    def fired(self) -> bool:
        return self._steps_left <= 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._count(task, "before")

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._count(task, "after")

    def _count(self, task: trio.lowlevel.Task, edge: Edge) -> None:
        if task is self._task and edge == self._edge:
            self._steps_left -= 1
            if self._steps_left == 0:
                self._scope.cancel()


async def sweep(scenario: Callable[[], Awaitable[object]], after: Callable[[], Awaitable[object]] | None = None) -> int:
    """Run ``scenario`` again and again, cancelled at its 1st, 2nd, ... nth checkpoint, until none is left.

    At each checkpoint it is cancelled in two ways: while it waits there, and when it has been woken but has not run on
    yet, which is when a hand-over can be lost. ``after`` is awaited after each run, to check the books.

    Returns:
        how many runs were cancelled.

    Raises:
        BaseException: what ``scenario`` or ``after`` raised.
    """
    runs = 0
    for edge in ("before", "after"):
        step = 1
        while await _run_cancelled(scenario, step, edge):
            step += 1
            runs += 1
            if after is not None:
                await after()
        if after is not None:
            await after()
    return runs


async def _run_cancelled(scenario: Callable[[], Awaitable[object]], step: int, edge: Edge) -> bool:
    """Run ``scenario``, cancelled at ``step``; tell whether it got that far."""
    scope = trio.CancelScope()
    canceller = _Canceller(current_task(), step, edge, scope)
    with scope:
        add_instrument(canceller)
        try:
            await scenario()
        finally:
            remove_instrument(canceller)
    return canceller.fired
