"""The tasks that run a worker's asynchronous callbacks, each under its deadline."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Generic, TypeVar, final

import trio

from ._fleet import Job
from ._worker import overrides

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._engine import Engine
    from ._options import Settings
    from ._slot import Slot
    from ._worker import PoolWorker

R = TypeVar("R")
T = TypeVar("T")
logger = logging.getLogger("nimblepool")


class Stopped(Exception):  # noqa: N818 - no error: the pool has no more use for the outcome
    """The pool stopped a callback, because its slot was doomed meanwhile."""


@final
class Watch:
    """A running ``watch``."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope(shield=True)
        self.ended = trio.Event()

    async def stop(self) -> None:
        self.scope.cancel()
        await self.ended.wait()


@final
class Crew(Generic[R]):
    """Does what the pure part has decided about slots, and tells it what became of it.

    The tasks are shielded from whatever is cancelled around the pool: what runs on a resource is stopped by the pool
    alone, at its deadline or because the slot was doomed.

    Invariant: every task ends with exactly one event for its slot, whatever the callback does.
    """

    def __init__(self, engine: Engine[R], worker: PoolWorker[R], settings: Settings, nursery: trio.Nursery) -> None:
        self._engine = engine
        self._worker = worker
        self._name = type(worker).__name__
        self._settings = settings
        self._nursery = nursery
        self._watches = overrides(worker, "watch")
        self._jobs = {Job.OPEN: self._open, Job.PING: self._ping, Job.RESET: self._reset, Job.CLOSE: self._close}

    def start(self, job: Job, slot: Slot[R]) -> None:
        if job is not Job.ABORT:
            self._nursery.start_soon(self._jobs[job], slot, name=f"{self._engine.name}: {job.value}")
        elif isinstance(slot.running, trio.CancelScope):
            slot.running.cancel()

    def watch(self, slot: Slot[R]) -> None:
        """Start to watch the slot's resource, if the worker does that, and stop to watch the one before it."""
        if isinstance(slot.watching, Watch):
            slot.watching.scope.cancel()
        if self._watches:
            slot.watching = watch = Watch()
            self._nursery.start_soon(self._watch, slot, watch, name=f"{self._engine.name}: watch")

    async def _open(self, slot: Slot[R]) -> None:
        engine = self._engine
        began = engine.now()
        try:
            resource = await self._attempt(slot, "init", self._settings.init_timeout, self._init)
        except BaseException as error:  # noqa: BLE001 - the books come first; `_let_through` raises it
            engine.open_failed(slot, error, engine.now() - began)
            _let_through(error)
        else:
            engine.opened(slot, resource, engine.now() - began)

    async def _init(self) -> R:
        await self._engine.start_worker()
        return await self._worker.init()

    async def _ping(self, slot: Slot[R]) -> None:
        error = await self._check(slot, "ping", self._settings.ping_timeout, self._worker.ping)
        self._engine.pinged(slot, error)
        _let_through(error)

    async def _reset(self, slot: Slot[R]) -> None:
        error = await self._check(slot, "reset", self._settings.reset_timeout, self._worker.reset)
        self._engine.was_reset(slot, error)
        _let_through(error)

    async def _close(self, slot: Slot[R]) -> None:
        assert slot.doom is not None, "bug: a slot closes for no reason"
        timeout = self._settings.terminate_timeout
        try:
            with trio.CancelScope(shield=True, deadline=self._engine.now() + timeout) as scope:
                if isinstance(slot.watching, Watch):
                    await slot.watching.stop()
            with trio.CancelScope(shield=True, deadline=self._engine.now() + timeout) as scope:
                await self._worker.terminate(slot.resource, slot.doom)
            if scope.cancelled_caught:
                logger.error("%s.terminate took longer than %g s; the resource is abandoned", self._name, timeout)
        except Exception:
            logger.exception("%s.terminate failed; the resource is abandoned", self._name)
        finally:
            self._engine.terminated(slot)

    async def _watch(self, slot: Slot[R], watch: Watch) -> None:
        error: Exception | None = None
        try:
            with watch.scope:
                await self._worker.watch(slot.resource)
        except Exception as raised:  # noqa: BLE001 - raising is how it says that the resource is dead
            error = raised
        finally:
            watch.ended.set()
        if not watch.scope.cancelled_caught and slot.watching is watch:
            self._engine.died(slot, error)

    async def _check(
        self, slot: Slot[R], name: str, timeout: float, callback: Callable[[R], Awaitable[None]]
    ) -> BaseException | None:
        """Run ``callback`` on the slot's resource; return what it raised."""
        try:
            await self._attempt(slot, name, timeout, lambda: callback(slot.resource))
        except BaseException as error:  # noqa: BLE001 - the books come first; `_let_through` raises it
            return error
        return None

    async def _attempt(self, slot: Slot[R], name: str, timeout: float, callback: Callable[[], Awaitable[T]]) -> T:
        """Run ``callback`` under its deadline, so that it can be stopped.

        Raises:
            trio.TooSlowError: the deadline came first.
            Stopped: the slot was doomed meanwhile.
        """
        try:
            with trio.CancelScope(deadline=self._engine.now() + timeout, shield=True) as scope:
                slot.running = scope
                if slot.doom is not None:
                    scope.cancel()
                return await callback()
        finally:
            slot.running = None
        if slot.doom is not None:
            raise Stopped
        raise trio.TooSlowError(f"{self._name}.{name} took longer than {timeout:g} s")


def _let_through(error: BaseException | None) -> None:
    """Raise ``error`` if it is more than a callback's failure: ``SystemExit``, ``KeyboardInterrupt``."""
    if error is not None and not isinstance(error, Exception):
        raise error
