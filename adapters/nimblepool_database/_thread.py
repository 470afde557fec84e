"""The thread that a blocking driver's connection lives in.

A connection gets a thread of its own, for as long as it lives: drivers insist on it or profit from it, and a hop to a
waiting thread costs two thirds of one through trio's thread cache.

A cancelled call is never left behind while it may still touch the connection. The thread cannot be stopped, but the
driver can be asked to break off (`interrupt`), and then the caller waits, shielded, until the thread has come back. The
cancellation goes on its way after that, whatever the function answered. An interrupt can come too early, between two
statements of the function or before its first, and is lost then: it is repeated until the thread is back. A driver that
may not listen gets a deadline; what misses it is *abandoned*: the connection is good for nothing but being closed, and
the thread, which nobody can end, ends when the driver lets go of it.
"""

from __future__ import annotations

import math
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar, final

import trio

from ._call import Call

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

FIRST_REMINDER = 0.001
"""Seconds until an interrupt is repeated for the first time; every further wait is twice as long."""
LAST_REMINDER = 0.05
"""Seconds between interrupts at most."""


@final
class ConnectionThread:
    """A thread that runs functions for trio tasks, one at a time, in the order they were asked for.

    The thread starts at once and ends with `finish`. It is a daemon: an interpreter that goes down in a crash does
    not wait for it.

    Args:
        name: the thread's name, for debuggers.

    Raises:
        RuntimeError: the system refuses to start a thread.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Call[Any] | None] = SimpleQueue()
        self._under_way = 0
        self._finishing = False
        self._abandoned = False
        self._running: Call[Any] | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a function is queued or running: somebody gave up waiting for it, or still waits."""
        return self._under_way > 0

    @property
    def abandoned(self) -> bool:
        """Whether somebody stopped waiting for a function that had begun, or that will still be run."""
        return self._abandoned

    def stopping(self) -> bool:
        """Tell whether the running function was cancelled; one made of many short steps asks between them."""
        return self._running is not None and self._running.interrupted

    async def run(self, fn: Callable[[], T]) -> T:
        """Run ``fn()`` in the thread and return its result.

        A cancellation leaves ``fn`` running, and ``busy`` true until it returns; the caller must then let the
        connection go. For what must not be broken off half-way: opening, COMMIT, ROLLBACK.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        call = self._hand_over(fn)
        try:
            await call.wait()
        except BaseException:
            self._abandoned = True
            raise
        return call.result()

    async def run_interruptibly(
        self, fn: Callable[[], T], interrupt: Callable[[], None], patience: float = math.inf
    ) -> T:
        """Run ``fn()`` in the thread and return its result; when cancelled, break it off.

        ``interrupt`` is called from trio's thread, perhaps repeatedly, and must not block. `trio.Cancelled` comes out
        only when the thread has left ``fn``, and it does come out even if ``fn`` had succeeded. If the thread does not
        leave ``fn`` within ``patience`` seconds, `trio.Cancelled` comes out all the same, and ``fn`` is abandoned.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        call = self._hand_over(fn)
        try:
            await call.wait()
        except BaseException:
            await self._bring_back(call, interrupt, patience)
            raise
        return call.result()

    async def finish(self, fn: Callable[[], T], interrupt: Callable[[], None]) -> T:
        """Run ``fn()`` as the last function of the thread, return when the thread has ended; to be called once.

        Functions that are still ahead of it are interrupted. A cancellation only ends the waiting: the thread runs
        ``fn`` when its turn comes, and ends.
        """
        call = self._hand_over(fn)
        self._finishing = True
        self._calls.put(None)
        await self._insist(call, lambda: self._interrupt_before(call, interrupt))
        # No more than a moment: the thread has nothing left to run.
        self._thread.join()
        return call.result()

    def _hand_over(self, fn: Callable[[], T]) -> Call[T]:
        assert not self._finishing, "bug: a function for a thread that is ending"
        call = Call(fn, self._count_back)
        self._under_way += 1
        self._calls.put(call)
        return call

    def _count_back(self) -> None:
        self._under_way -= 1

    async def _bring_back(self, call: Call[Any], interrupt: Callable[[], None], patience: float) -> None:
        if call.withdraw():
            return
        try:
            with trio.move_on_after(patience, shield=True) as scope:
                await self._insist(call, lambda: call.interrupt(interrupt))
            self._abandoned |= scope.cancelled_caught
        finally:
            call.forget()

    async def _insist(self, call: Call[Any], remind: Callable[[], None]) -> None:
        patience = FIRST_REMINDER
        while True:
            remind()
            with trio.move_on_after(patience):
                await call.wait()
                return
            patience = min(2 * patience, LAST_REMINDER)

    def _interrupt_before(self, last: Call[Any], interrupt: Callable[[], None]) -> None:
        running = self._running
        if running is not None and running is not last:
            running.interrupt(interrupt)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            self._running = call
            call.run()
            # An idle thread must not keep the last rows, or the last error, alive.
            self._running = None
            del call
