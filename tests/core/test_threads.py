"""A pool belongs to one thread; the others are told so before anything changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from nimblepool import Lease, Pool, open_pool
from nimblepool.testing import FakeResource, FakeWorker

if TYPE_CHECKING:
    from collections.abc import Callable

ACTIONS: dict[str, Callable[[Pool[FakeResource], Lease[FakeResource]], object]] = {
    "release": lambda pool, lease: lease.release(),
    "remove": lambda pool, lease: lease.remove(),
    "replace": lambda pool, lease: lease.replace(FakeResource(99)),
    "pause": lambda pool, lease: pool.pause(),
    "resume": lambda pool, lease: pool.resume(),
    "resize": lambda pool, lease: pool.resize(min_size=2, max_size=2),
    "refresh": lambda pool, lease: pool.refresh(),
    "refresh_capacity": lambda pool, lease: pool.refresh_capacity(),
    "broadcast": lambda pool, lease: pool.broadcast("news"),
    "checkout_nowait": lambda pool, lease: pool.checkout_nowait(),
}


@pytest.mark.parametrize("name", ACTIONS)
async def test_another_thread_is_refused_and_changes_nothing(name: str) -> None:
    worker = FakeWorker(capacity=1)
    async with open_pool(worker) as pool:
        await pool.wait_ready(2)
        async with pool.checkout() as lease:
            resource = lease.resource
            before = (pool.stats, list(worker.calls))
            with pytest.raises(RuntimeError, match=r"another thread: go through trio\.from_thread\.run_sync"):
                await trio.to_thread.run_sync(ACTIONS[name], pool, lease)
            assert (pool.stats, worker.calls) == before
            assert lease.resource is resource
        with pool.checkout_nowait(), pool.checkout_nowait():
            assert pool.stats.idle == 0


async def test_another_thread_gets_there_through_trio() -> None:
    async with open_pool(FakeWorker()) as pool:
        lease = await pool.acquire(owner=None)

        def work() -> None:
            trio.from_thread.run_sync(lease.release)
            trio.from_thread.run_sync(pool.pause)

        await trio.to_thread.run_sync(work)
        assert not lease.is_held
        assert pool.stats.idle == 1
        pool.resume()
