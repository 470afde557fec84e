"""One function on its way to a thread and back."""

from __future__ import annotations

import threading
from contextlib import suppress
from enum import Enum, auto
from typing import TYPE_CHECKING, Generic, TypeVar, final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class _Stage(Enum):
    QUEUED = auto()
    RUNNING = auto()
    ENDED = auto()
    WITHDRAWN = auto()


@final
class Call(Generic[T]):
    """A function that a trio task hands to a thread, and the way its outcome comes back.

    Args:
        fn: what the thread runs.
        on_back: called in trio's thread once the thread is through with ``fn``, or once the call was withdrawn.

    Attributes:
        interrupted: whether the running function has been asked to break off.
    """

    __slots__ = ("_back", "_error", "_fn", "_lock", "_on_back", "_stage", "_token", "_value", "_waiter", "interrupted")

    _value: T

    def __init__(self, fn: Callable[[], T], on_back: Callable[[], None]) -> None:
        self._fn = fn
        self._on_back = on_back
        self._token = trio.lowlevel.current_trio_token()
        # Held for a few instructions at a time: it keeps an interrupt from reaching the thread's *next* call.
        self._lock = threading.Lock()
        self._stage = _Stage.QUEUED
        self._waiter: trio.lowlevel.Task | None = None
        self._back = False
        self._error: BaseException | None = None
        self.interrupted = False

    def run(self) -> None:
        """Run the function, in the thread, and report to trio; does nothing if the call was withdrawn."""
        if not self._advance(_Stage.QUEUED, _Stage.RUNNING):
            return
        try:
            self._value = self._fn()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to the task that waits
            self._error = error
        self._advance(_Stage.RUNNING, _Stage.ENDED)
        # The run is over only if it crashed: nobody waits any more.
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._come_back)

    def withdraw(self) -> bool:
        """Take the call back if the thread has not begun it; tell whether that worked."""
        withdrawn = self._advance(_Stage.QUEUED, _Stage.WITHDRAWN)
        if withdrawn:
            self._on_back()
        return withdrawn

    def interrupt(self, interrupt: Callable[[], None]) -> None:
        """Call ``interrupt``, which must not block, if the thread is inside the function at this moment."""
        with self._lock:
            if self._stage is _Stage.RUNNING:
                self.interrupted = True
                interrupt()

    async def wait(self) -> None:
        """Wait until the thread is through with the function. Cancelling this ends the waiting, not the function."""
        if self._back:
            return
        self._waiter = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._waiter = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def result(self) -> T:
        """Return what the function returned, or raise what it raised; once, and only after ``wait``."""
        # Forgotten here, for its traceback holds this call: a cycle that the collector would have to find.
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error
        return self._value

    def forget(self) -> None:
        """Drop the error, which nobody will ask for."""
        self._error = None

    def _advance(self, expected: _Stage, following: _Stage) -> bool:
        with self._lock:
            if self._stage is not expected:
                return False
            self._stage = following
            return True

    def _come_back(self) -> None:
        self._back = True
        self._on_back()
        if self._waiter is not None:
            trio.lowlevel.reschedule(self._waiter)
            self._waiter = None
