"""What is more than an error (``SystemExit``) comes out of the pool's block, wherever it was raised."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from nimblepool import NoneIdle, PoolObserver, Reason, Verdict, open_pool
from nimblepool.testing import Fail, FakeResource, FakeWorker

if TYPE_CHECKING:
    from nimblepool import Pool


class Fatal(BaseException):
    """As serious as ``SystemExit``."""


class FatalAtCheckout(PoolObserver):
    def __init__(self, *, queued: bool) -> None:
        self._queued = queued

    def checkout(self, pool: str, wait: float) -> None:
        if (wait > 0) == self._queued:
            raise Fatal


class FatalWhenCancelled(PoolObserver):
    def cancelled(self, pool: str, wait: float) -> None:
        raise Fatal


@pytest.mark.parametrize("queued", [True, False])
async def test_from_an_observer_of_a_checkout(*, queued: bool) -> None:
    pools: list[Pool[FakeResource]] = []
    with pytest.raises(Fatal):
        async with open_pool(FakeWorker(), max_size=1, observers=[FatalAtCheckout(queued=queued)]) as pool:
            pools.append(pool)
            await pool.wait_ready()
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(partial(pool.run, FakeResource.use, 1))
            await trio.sleep(60)
            raise AssertionError("it was lost")
    assert pools[0].stats.leases == 0


async def test_from_an_observer_of_a_cancellation() -> None:
    with pytest.raises(Fatal):
        async with open_pool(FakeWorker(), max_size=1, observers=[FatalWhenCancelled()]) as pool:
            await cancel_a_waiter(pool)


async def test_from_the_workers_cancelled() -> None:
    worker = FakeWorker()
    worker.script("cancelled", Fail(Fatal()))
    with pytest.raises(Fatal):
        async with open_pool(worker, max_size=1) as pool:
            await cancel_a_waiter(pool)


async def cancel_a_waiter(pool: Pool[FakeResource]) -> None:
    async with pool.checkout():
        with trio.move_on_after(1):
            async with pool.checkout(timeout=None):
                pass
        await trio.sleep(60)
        raise AssertionError("it was lost")


async def test_from_the_workers_message() -> None:
    worker = FakeWorker()
    worker.script("message", Verdict.REMOVE, Fail(Fatal()))
    with pytest.raises(Fatal):
        async with open_pool(worker) as pool:
            await pool.wait_ready(3)
            pool.broadcast("news")
            await wait_all_tasks_blocked()
            raise AssertionError("it was lost")
    assert worker.count("message") == 3, "the others were told all the same"
    assert [resource.terminated for resource in worker.resources] == [[Reason.REMOVED]] * 2 + [[Reason.CLOSED]]


class DroppedTwice(PoolObserver):
    """It raises in an event that it sets off itself in the midst of another, and then in that one, too."""

    def __init__(self, pools: list[Pool[FakeResource]]) -> None:
        self._pools = pools
        self.heard: list[str] = []

    def checkin(self, pool: str, used: float, error: BaseException | None) -> None:
        self.heard.append("checkin")
        with suppress(NoneIdle), self._pools[0].checkout_nowait():
            pass
        raise ValueError("the outer one")

    def checkout(self, pool: str, wait: float) -> None:
        self.heard.append("checkout")
        if "checkin" in self.heard:
            raise ValueError("the inner one")


async def test_an_observer_that_is_dropped_in_the_midst_of_an_event_is_no_error() -> None:
    pools: list[Pool[FakeResource]] = []
    observer = DroppedTwice(pools)
    async with open_pool(FakeWorker(), observers=[observer]) as pool:
        pools.append(pool)
        await pool.run(FakeResource.use)
        await pool.run(FakeResource.use)
        assert observer.heard == ["checkout", "checkin", "checkout"]
        assert pool.stats.leases == 0
