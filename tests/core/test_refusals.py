"""A worker that refuses a resource, or a client, at the moment of lending."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from nimblepool import Skip, Verdict, open_keyed_pool, open_pool
from nimblepool.testing import Fail, FakeWorker, check_balance

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager


async def others_steps(checkout: Callable[[], AbstractAsyncContextManager[object]]) -> int:
    """Return how many steps another task gets while a client is refused 100 times."""
    steps = 0

    async def other() -> None:
        nonlocal steps
        while True:
            steps += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(100):
            with pytest.raises(KeyError):
                async with checkout():
                    pass
        nursery.cancel_scope.cancel()
    return steps


@pytest.mark.parametrize("verdict", [Verdict.REMOVE, Verdict.RESET])
async def test_beside_a_half_empty_resource_that_is_refused_the_other_is_lent_at_once(verdict: Verdict) -> None:
    worker = FakeWorker(capacity=2)
    async with open_pool(worker, max_size=2) as pool:
        await pool.wait_ready(2)
        first, second = [await pool.acquire() for _ in range(2)]
        assert first.resource is not second.resource
        worker.script("checkout", verdict)
        started = trio.current_time()
        async with pool.checkout() as lease:
            refused, lent = [resource for name, resource in worker.calls if name == "checkout"][-2:]
            assert lease.resource is lent is not refused
            assert trio.current_time() == started
            check_balance(pool)
        first.release()
        second.release()


async def test_a_direct_checkout_that_fails_is_a_checkpoint() -> None:
    """A client that tries again for ever kept everybody else from running, its own timeout among them."""
    worker = FakeWorker()
    worker.always("checkout", Fail(Skip(KeyError("not this one"))))

    def make_worker(key: str) -> FakeWorker:
        return worker

    async with open_pool(worker) as pool:
        await pool.wait_ready()
        assert await others_steps(pool.checkout) >= 99
    async with open_keyed_pool(make_worker) as keyed:
        await keyed.pool_of("a").wait_ready()
        assert await others_steps(partial(keyed.checkout, "a")) >= 99


async def test_an_enqueue_that_raises_is_a_checkpoint() -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_size=1) as pool, pool.checkout():
        worker.always("enqueue", Fail(KeyError("no such table")))
        assert await others_steps(pool.checkout) >= 99
        assert pool.stats.refused == 100
