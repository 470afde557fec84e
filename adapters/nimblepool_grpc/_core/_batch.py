"""What the core has been given to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, final

import trio
from trio.lowlevel import Abort, Task, checkpoint, current_task, reschedule, wait_task_rescheduled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trio.lowlevel import RaiseCancelT

__all__ = ["Batch", "Ledger", "Owner", "pass_by"]


class Ledger(Protocol):
    """Keeps count of batches."""

    ended: int


class Owner(Protocol):
    """What a batch belongs to."""

    def abandon(self) -> None:
        """Have the core end all batches of it soon, without waiting for the network."""


async def pass_by(owner: Owner) -> None:
    """Be a checkpoint; cancelled, it abandons ``owner`` as a wait would."""
    try:
        await checkpoint()
    except BaseException:
        owner.abandon()
        raise


@final
class Batch:
    """Some operations that the core does together, and the one task that may wait for them.

    To cygrpc it is the future which its coroutine awaits; that coroutine is driven by hand, so it needs no task.

    The core holds a pointer to it until it has ended. So no wait ends before the batch has: one that is cancelled
    abandons the owner, which makes the batch end, and lets the cancellation go on only then.

    Invariants:
        _steps is not None from its beginning until the core has ended it
        _then is None once it has ended
        _task is not None if and only if that task waits for it
        failed only if it has ended
    """

    __slots__ = ("_ledger", "_raise_cancel", "_steps", "_task", "_then", "ended", "failed")

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.ended = False
        self.failed = False
        self._steps: Iterator[object] | None = None
        self._then: Callable[[], None] | None = None
        self._task: Task | None = None
        self._raise_cancel: RaiseCancelT | None = None

    def begin(self, steps: Iterator[object], then: Callable[[], None] | None) -> None:
        """Tell what is left to do when the core has done its part: the rest of ``steps``, and ``then``."""
        self._steps = steps
        self._then = then

    async def wait(self, owner: Owner, what: str) -> None:
        """Wait for the end; a checkpoint. Cancelled: ``owner`` is abandoned.

        Raises:
            trio.BusyResourceError: another task waits for it, naming ``what`` that does.
        """
        if self._task is not None:
            raise trio.BusyResourceError(f"another task is already {what}")

        def abort(raise_cancel: RaiseCancelT) -> Abort:
            self._raise_cancel = raise_cancel
            owner.abandon()
            return Abort.FAILED

        self._task = current_task()
        try:
            if self.ended:
                await pass_by(owner)
            else:
                await wait_task_rescheduled(abort)
        finally:
            self._task = None
        if self._raise_cancel is not None:
            raise_cancel, self._raise_cancel = self._raise_cancel, None
            raise_cancel()

    # The future, as cygrpc sees it.

    def __await__(self) -> Iterator[Batch]:
        return iter((self,))  # half the price of a generator

    def cancelled(self) -> bool:
        """Never: the core would not be told."""
        return False

    def set_exception(self, _error: BaseException) -> None:
        """The core could not do all: go on all the same, for the rest of ``steps`` frees what the batch had used."""
        self.failed = True
        self.set_result(None)

    def set_result(self, _result: None) -> None:
        """The core has done it."""
        assert self._steps is not None, "bug: the core ended a batch that had not begun"
        try:
            next(self._steps, None)
            self._steps = None
            self.ended = True
            self._ledger.ended += 1
            if self._then is not None:
                then, self._then = self._then, None
                then()
        finally:
            if self._task is not None:
                reschedule(self._task)
