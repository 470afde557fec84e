"""The upkeep of an idle resource: ``ping`` and ``reset``."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio

from nimblepool._verdict import Reason

from .deadlines import within_deadline
from .watch import watched

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nimblepool._worker import PoolWorker

    from .supply import Supply

R = TypeVar("R")


async def check_upkeep(worker: PoolWorker[R], supply: Supply[R]) -> None:
    """Ping and reset a fresh resource; then cut both short, which must leave something that can be closed."""
    remedy = "it must succeed on a fresh resource"
    async with supply.resource() as resource, watched(worker, resource):
        await within_deadline(worker, "ping", lambda: worker.ping(resource), remedy=remedy)
        await within_deadline(worker, "reset", lambda: worker.reset(resource), remedy=remedy)
    for reason, callback in ((Reason.PING, worker.ping), (Reason.RESET, worker.reset)):
        async with supply.resource(reason) as resource:
            await _cut_short(callback, resource)


async def _cut_short(callback: Callable[[R], Awaitable[None]], resource: R) -> None:
    """Cancel ``callback`` where it first waits, as its deadline might."""
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await callback(resource)
        except Exception:  # noqa: BLE001 - the pool takes it for dead either way
            return
