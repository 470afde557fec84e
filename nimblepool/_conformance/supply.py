"""The resources for the callbacks to be tried out on: ``init`` and ``terminate``."""

from __future__ import annotations

import gc
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Generic, TypeVar, final

import trio

from nimblepool._sweep import sweep
from nimblepool._verdict import Reason

from .complaint import broken
from .deadlines import within_deadline
from .leaks import noting_leaks

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from nimblepool._worker import PoolWorker

R = TypeVar("R")


@final
class Supply(Generic[R]):
    """Opens and closes resources as a pool would."""

    def __init__(self, worker: PoolWorker[R]) -> None:
        self._worker = worker

    @asynccontextmanager
    async def resource(self, reason: Reason = Reason.CLOSED) -> AsyncGenerator[R]:
        """Open a resource for the block, and then close it for ``reason``."""
        resource = await self._open()
        try:
            yield resource
        finally:
            await self._close(resource, reason)

    async def check_init(self) -> None:
        """Open two at a time, which must be two."""
        async with self.resource() as one, self.resource() as another:
            if one is another:
                raise broken(
                    self._worker,
                    "init",
                    "returned the same object twice",
                    "two clients would share it: return a new one every time",
                )

    async def check_cancelled_init(self) -> None:
        """Cancel ``init`` wherever it waits. What it returns all the same is closed; what it loses may be seen."""
        opened: list[R] = []

        async def open_one() -> None:
            opened.append(await self._open_cancelled())

        async def close_all() -> None:
            while opened:
                await self._close(opened.pop(), Reason.CLOSED)

        gc.collect()
        with noting_leaks() as leaks:
            await sweep(open_one, close_all)
            gc.collect()
        if leaks:
            raise broken(
                self._worker,
                "init",
                f"left something open when it was cancelled: {leaks[0]}",
                "close what it has opened so far when it does not return it (try/except BaseException)",
            )

    async def _open(self) -> R:
        remedy = "let it open one resource"
        resource = await within_deadline(self._worker, "init", self._worker.init, remedy=remedy)
        if resource is None:
            raise broken(self._worker, "init", "returned None", "return what it opened")
        return resource

    async def _open_cancelled(self) -> R:
        try:
            return await self._worker.init()
        except Exception as error:
            rule = f"raised {error!r} when it was cancelled"
            raise broken(self._worker, "init", rule, "let trio.Cancelled pass, and clean up without raising") from error

    async def _close(self, resource: R, reason: Reason) -> None:
        remedy = f"it must close any resource that init returned, also one that is broken (reason: {reason})"
        with trio.CancelScope(shield=True):
            await within_deadline(
                self._worker, "terminate", lambda: self._worker.terminate(resource, reason), remedy=remedy
            )
