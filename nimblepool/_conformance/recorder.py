"""The recorder: a worker between the pool and the worker that is checked."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar, final

import trio

from nimblepool._verdict import Reason, Stage, Verdict
from nimblepool._worker import PoolWorker, overrides

from .complaint import BrokenContractError, broken
from .deadlines import DEADLINES

if TYPE_CHECKING:
    from collections.abc import Generator

R = TypeVar("R")


@final
class Recorder(PoolWorker[R]):
    """Passes every call on to the worker, and remembers what the pool would only log."""

    def __init__(self, worker: PoolWorker[R]) -> None:
        self._worker = worker
        self._faults: list[BrokenContractError] = []
        self.is_shared = overrides(worker, "capacity")
        self.asks_for_reset = False
        self.fails_ping = False
        # The pool looks up once which callbacks a worker overrides; this one overrides what its worker does.
        if not self.is_shared:
            self.capacity = super().capacity  # type: ignore[method-assign]
        if not overrides(worker, "watch"):
            self.watch = super().watch  # type: ignore[method-assign]

    def check(self) -> None:
        """Raise the first fault, if there was one."""
        if self._faults:
            raise self._faults[0]

    def broken(self, callback: str, rule: str, remedy: str) -> BrokenContractError:
        """Return the complaint about the worker."""
        return broken(self._worker, callback, rule, remedy)

    async def init(self) -> R:
        return await self._worker.init()

    async def terminate(self, resource: R, reason: Reason) -> None:
        with self._noting("terminate", f"it must close a resource that was used (reason: {reason})"):
            await self._worker.terminate(resource, reason)

    def checkout(self, resource: R, request: object) -> Verdict:
        return self._worker.checkout(resource, request)

    def checkin(self, resource: R, error: BaseException | None) -> Verdict:
        """Pass on, and ask for a reset once, when told to."""
        with self._noting("checkin", "return a nimblepool.Verdict"):
            verdict = self._worker.checkin(resource, error)
        if self.asks_for_reset and verdict is Verdict.OK:
            self.asks_for_reset = False
            return Verdict.RESET
        return verdict

    async def reset(self, resource: R) -> None:
        with self._noting("reset", "it must succeed after a use that ended well"):
            await self._worker.reset(resource)

    async def ping(self, resource: R) -> None:
        """Pass on, and fail once, when told to."""
        with self._noting("ping", "it must succeed on a resource that is not dead"):
            await self._worker.ping(resource)
        if self.fails_ping:
            self.fails_ping = False
            raise ConnectionError("check_worker lets this ping fail")

    async def watch(self, resource: R) -> None:
        """Pass on; it must not return."""
        remedy = "live as long as the resource does"
        with self._noting("watch", remedy):
            await self._worker.watch(resource)
        self._faults.append(self.broken("watch", "returned while the resource was in use", remedy))

    def capacity(self, resource: R) -> int:
        return self._worker.capacity(resource)

    def enqueue(self, request: object) -> object:
        return self._worker.enqueue(request)

    def cancelled(self, stage: Stage, request: object) -> None:
        with self._noting("cancelled", "it hears of a client that gave up, and has nothing to refuse"):
            self._worker.cancelled(stage, request)

    async def start(self) -> None:
        await self._worker.start()

    async def stop(self) -> None:
        with self._noting("stop", "it must succeed after the last terminate"):
            await self._worker.stop()

    @contextmanager
    def _noting(self, callback: str, remedy: str) -> Generator[None]:
        """Note what the block raises: the pool is going to log it."""
        try:
            yield
        except Exception as error:
            fault = self.broken(callback, f"raised {error!r} in a pool", remedy)
            fault.__cause__ = error
            self._faults.append(fault)
            raise
        except trio.Cancelled:
            if callback in {"terminate", "stop"}:  # the pool cancels them at their deadline only
                rule = f"took longer than {DEADLINES[callback]:g} s in a pool"
                self._faults.append(self.broken(callback, rule, remedy))
            raise
