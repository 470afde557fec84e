"""What can be done with a keyed pool, or done wrong."""

from __future__ import annotations

import gc
import inspect
import warnings
from typing import cast

import pytest
import trio

from nimblepool import PoolClosed, PoolWorker, open_keyed_pool
from nimblepool.testing import FakeResource, FakeWorker, Slow


def worker_of(key: str) -> FakeWorker:
    return FakeWorker()


async def test_a_key_whose_pool_was_closed_gets_a_new_one() -> None:
    workers: list[FakeWorker] = []

    def make_worker(key: str) -> FakeWorker:
        workers.append(FakeWorker())
        return workers[-1]

    async with open_keyed_pool(make_worker) as keyed:
        await keyed.run("a", FakeResource.use)
        first = keyed.pool_of("a")
        await first.close()
        with pytest.raises(PoolClosed):
            await first.run(FakeResource.use)
        await keyed.run("a", FakeResource.use)
        assert keyed.pool_of("a") is not first
        await keyed.pool_of("a").close()
        await keyed.close()
        with pytest.raises(PoolClosed):
            await keyed.run("a", FakeResource.use)
    assert [worker.count("stop") for worker in workers] == [1, 1]
    assert [len(worker.resources) for worker in workers] == [1, 1]


async def test_a_keys_pool_that_is_closing_is_not_closed_twice() -> None:
    worker = FakeWorker()
    worker.always("terminate", Slow(2))
    worker.always("stop", Slow(1))

    def make_worker(key: str) -> FakeWorker:
        return worker

    async with open_keyed_pool(make_worker) as keyed:
        await keyed.run("a", FakeResource.use)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keyed.pool_of("a").close)
            await trio.sleep(0.5)
            started = trio.current_time()
            await keyed.close()
            assert trio.current_time() - started == pytest.approx(1.5 + 1)
    assert worker.count("stop") == 1


async def test_a_checkout_is_entered_once() -> None:
    async with open_keyed_pool(worker_of) as keyed:
        checkout = keyed.checkout("a")
        async with checkout as lease:
            with pytest.raises(RuntimeError, match="can be entered only once"):
                await checkout.__aenter__()
            assert lease.is_held
        with pytest.raises(RuntimeError, match="can be entered only once"):
            await checkout.__aenter__()
        assert keyed.stats["a"].leases == 0


async def test_a_lost_lease_is_reported_with_the_line_that_acquired_it() -> None:
    async with open_keyed_pool(worker_of) as keyed:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            frame = inspect.currentframe()
            assert frame is not None
            line = frame.f_lineno + 1
            lease = await keyed.acquire("a")
            del lease
            gc.collect()
            await trio.sleep(1)
    assert [warning.category for warning in caught] == [ResourceWarning]
    assert f"it was acquired at {__file__}:{line} (test_a_lost_lease" in str(caught[0].message)


async def test_make_worker_must_return_a_worker() -> None:
    def make_worker(key: str) -> PoolWorker[FakeResource]:
        return cast("PoolWorker[FakeResource]", FakeWorker)

    async with open_keyed_pool(make_worker) as keyed:
        for _ in range(2):
            with pytest.raises(TypeError, match="what make_worker returns must be PoolWorker, not <class"):
                await keyed.run("a", FakeResource.use)
        assert not keyed.stats
