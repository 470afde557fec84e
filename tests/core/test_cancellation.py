"""Cancellation anywhere loses nothing and is delivered."""

from __future__ import annotations

import math
import random
from contextlib import AsyncExitStack
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from nimblepool import CheckoutTimeout, Pool, Verdict, open_pool
from nimblepool.testing import FakeResource, FakeWorker, Hang, Slow, check_balance, sweep


async def fill(pool: Pool[FakeResource], size: int) -> None:
    """Prove that the pool still has its full capacity: ``size`` leases at the same time."""
    async with AsyncExitStack() as stack:
        resources = {(await stack.enter_async_context(pool.checkout(timeout=60))).resource for _ in range(size)}
        assert len(resources) == size
        assert all(resource.is_open for resource in resources)
    check_balance(pool)


async def test_cancelling_a_checkout_loses_nothing_wherever_it_happens() -> None:
    """Cancelled after a slot was assigned, before it connected: the slot was lost for ever (httpcore #830, #1093)."""
    worker = FakeWorker()
    worker.always("init", Slow(1))
    async with open_pool(worker, max_size=2) as pool:

        async def scenario() -> None:
            async with pool.checkout():
                await trio.lowlevel.checkpoint()
                await trio.sleep(1)

        async def after() -> None:
            await fill(pool, 2)
            pool.refresh()  # so that the next one has to open again

        assert await sweep(scenario, after) >= 6


async def test_cancelling_a_waiter_loses_nothing_when_it_was_handed_a_resource() -> None:
    """A cancelled waiter kept its place and was handed a resource (psycopg_pool #509, #1275, #1401)."""
    async with open_pool(FakeWorker(), max_size=1) as pool:
        got_it = 0

        async def scenario() -> None:
            nonlocal got_it
            async with trio.open_nursery() as nursery:
                await nursery.start(hold, pool, 1)
                async with pool.checkout():
                    got_it += 1

        async def after() -> None:
            await fill(pool, 1)

        assert await sweep(scenario, after) >= 3
        assert got_it


async def hold(
    pool: Pool[FakeResource], seconds: float, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    async with pool.checkout(timeout=math.inf):
        task_status.started()
        await trio.sleep(seconds)


async def test_a_cancellation_that_meets_the_hand_over_is_delivered_and_the_resource_goes_on() -> None:
    served: list[str] = []
    async with open_pool(FakeWorker(), max_size=1) as pool, trio.open_nursery() as nursery:

        async def client(name: str, scope: trio.CancelScope) -> None:
            with scope:
                async with pool.checkout():
                    await trio.lowlevel.checkpoint()
                    served.append(name)

        first = trio.CancelScope()
        async with pool.checkout() as lease:
            nursery.start_soon(client, "first", first)
            await wait_all_tasks_blocked()
            nursery.start_soon(client, "second", trio.CancelScope())
            await wait_all_tasks_blocked()
            lease.release()  # hands it to the first,
            first.cancel()  # which is cancelled before it has run
        await wait_all_tasks_blocked()
        assert first.cancelled_caught
        assert served == ["second"]


async def test_a_timeout_that_meets_the_hand_over_gives_the_resource() -> None:
    async with open_pool(FakeWorker(), max_size=1) as pool, trio.open_nursery() as nursery:
        outcomes: list[str] = []

        async def client() -> None:
            try:
                async with pool.checkout(timeout=1):
                    outcomes.append("served")
            except CheckoutTimeout:
                outcomes.append("timed out")

        async with pool.checkout():
            nursery.start_soon(client)
            await trio.sleep(1)
        await wait_all_tasks_blocked()
        assert len(outcomes) == 1
        await fill(pool, 1)


@pytest.mark.parametrize("callback", ["checkin", "checkout"])
async def test_cancelling_around_a_reset_loses_nothing(callback: str) -> None:
    """Cancelled in the reset on return: capacity gone (aiosqlitepool, generic-connection-pool)."""
    worker = FakeWorker()
    worker.always(callback, Verdict.RESET)
    worker.always("reset", Slow(1))
    async with open_pool(worker, max_size=2) as pool:

        async def scenario() -> None:
            for _ in range(3):
                async with pool.checkout():
                    await trio.lowlevel.checkpoint()

        async def after() -> None:
            await fill(pool, 2)

        assert await sweep(scenario, after) >= 6
        assert worker.count("reset") > 3


async def test_cancelling_around_a_ping_loses_nothing() -> None:
    """Cancelled during the health check: capacity gone (aiosqlitepool, generic-connection-pool)."""
    worker = FakeWorker()
    worker.always("ping", Slow(1))
    async with open_pool(worker, max_size=2, ping_after=0.5) as pool:

        async def scenario() -> None:
            await trio.sleep(1)
            async with pool.checkout():
                await trio.lowlevel.checkpoint()

        async def after() -> None:
            await fill(pool, 2)

        assert await sweep(scenario, after) >= 4
        assert worker.count("ping") > 3


async def test_releasing_cannot_be_cancelled() -> None:
    """``release()`` was itself cancellable: in use for ever (redis-py)."""
    async with open_pool(FakeWorker(), max_size=2) as pool:

        async def scenario() -> None:
            lease = await pool.acquire()
            try:
                await trio.sleep(1)
            finally:
                lease.release()
                lease.release()

        async def after() -> None:
            assert pool.stats.leases == 0
            await fill(pool, 2)

        assert await sweep(scenario, after) >= 2


async def test_cancelling_a_wait_for_readiness_disturbs_nothing() -> None:
    worker = FakeWorker()
    worker.always("init", Slow(1))
    async with open_pool(worker, max_size=3) as pool:

        async def after() -> None:
            await fill(pool, 3)
            pool.refresh()

        assert await sweep(lambda: pool.wait_ready(3), after) >= 2


@pytest.mark.parametrize("step", [None, Slow(1), Hang()])
async def test_cancelling_the_closing_closes_all_the_same(step: object) -> None:
    workers: list[FakeWorker] = []

    async def scenario() -> None:
        worker = FakeWorker()
        workers.append(worker)
        worker.always("terminate", step)
        async with open_pool(worker, max_size=3) as pool:
            await pool.wait_ready(2)
            async with pool.checkout() as lease:
                lease.remove()

    assert await sweep(scenario) >= 4
    assert all(len(resource.terminated) == 1 for worker in workers for resource in worker.resources)


@pytest.mark.parametrize("seed", range(20))
async def test_a_third_of_the_tasks_cancelled_at_random_leave_the_full_capacity(seed: int) -> None:
    rng = random.Random(seed)
    worker = FakeWorker()
    async with open_pool(worker, max_size=3, checkout_timeout=None) as pool:

        async def client(*, cancelled: bool) -> None:
            with trio.CancelScope(deadline=trio.current_time() + rng.uniform(0, 60) if cancelled else math.inf):
                for _ in range(5):
                    async with pool.checkout():
                        await trio.sleep(rng.uniform(0, 1))

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(partial(client, cancelled=number % 3 == 0))
        assert pool.stats.cancelled > 0
        await fill(pool, 3)


async def test_an_error_in_the_clean_up_does_not_replace_the_cancellation() -> None:
    """An exception in clean-up replaced the cancellation (psycopg_pool #1412)."""
    worker = FakeWorker()

    class Careless(FakeWorker):
        def checkin(self, resource: FakeResource, error: BaseException | None) -> Verdict:
            raise RuntimeError("careless")

    worker = Careless()
    async with open_pool(worker) as pool:
        with trio.move_on_after(1) as scope:
            async with pool.checkout():
                await trio.sleep(math.inf)
        assert scope.cancelled_caught
        await fill(pool, 1)
