"""The ``watch`` over a resource."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeVar

import trio
from trio.testing import wait_all_tasks_blocked

from nimblepool._nursery import open_quiet_nursery
from nimblepool._worker import overrides

from .complaint import broken
from .deadlines import DEADLINES

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from nimblepool._worker import PoolWorker

    from .supply import Supply

R = TypeVar("R")

_WATCHED: Final = 1.0
"""Seconds after which a ``watch`` lives, if something else in the program never comes to rest."""
_CUSHION: Final = 0.01
"""Seconds of rest in which the answer to a ``watch`` that fails at once arrives."""


async def check_watch(worker: PoolWorker[R], supply: Supply[R]) -> None:
    """Watch over a fresh resource for a moment, which must neither end by itself nor go on when it is cancelled."""
    if not overrides(worker, "watch"):
        return
    async with supply.resource() as resource:
        ending, seconds = await _watch(worker, resource)
    if ending:
        raise broken(worker, "watch", f"{ending} at once", "that says the resource is dead: live as long as it does")
    if seconds > DEADLINES["watch"]:
        rule = f"did not end within {DEADLINES['watch']:g} s when it was cancelled"
        raise broken(worker, "watch", rule, "let trio.Cancelled pass")


@asynccontextmanager
async def watched(worker: PoolWorker[R], resource: R) -> AsyncGenerator[None]:
    """Let ``watch`` run beside the block, as it does in a pool: it may be what reads from the resource."""

    async def watch() -> None:
        with suppress(Exception):  # `check_watch` judges it
            await worker.watch(resource)

    async with open_quiet_nursery() as nursery:
        nursery.start_soon(watch)
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()


async def _watch(worker: PoolWorker[R], resource: R) -> tuple[str, float]:
    """Return how a ``watch`` ended by itself, if it did, and the seconds that cancelling it took."""
    ending = ""

    async def watch() -> None:
        nonlocal ending
        try:
            await worker.watch(resource)
            ending = "returned"
        except Exception as error:  # noqa: BLE001 - raising is one way to say that the resource is dead
            ending = f"raised {error!r}"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        with trio.move_on_after(_WATCHED):
            await wait_all_tasks_blocked(_CUSHION)
        by_itself, cancelled_at = ending, trio.current_time()
        nursery.cancel_scope.cancel()
    return by_itself, trio.current_time() - cancelled_at
