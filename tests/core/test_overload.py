"""More work than the pool can do: who is refused, when, and at what cost."""

from __future__ import annotations

import random
import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from nimblepool import CheckoutTimeout, CoDel, Pool, PoolOverloaded, PoolUnavailable, open_pool
from nimblepool._pool import engine_of
from nimblepool.testing import Fail, FakeResource, FakeWorker, Slow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# max_waiting


async def test_a_full_queue_refuses_at_once() -> None:
    async with open_pool(FakeWorker(), name="db", max_size=1, max_waiting=2) as pool:
        async with pool.checkout(), trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(pool.run, FakeResource.use)
            await wait_all_tasks_blocked()
            began = trio.current_time()
            with pytest.raises(
                PoolOverloaded,
                match=r"pool 'db': max_waiting \(2\) is reached: come back later; size 1 of 1 .* waiting 2",
            ):
                await pool.run(FakeResource.use)
            assert trio.current_time() == began
            nursery.cancel_scope.cancel()
        async with pool.checkout(timeout=0):
            pass
        assert pool.stats.shed == 1


async def test_a_place_that_comes_free_in_the_queue_is_given_to_the_next_who_asks() -> None:
    async with open_pool(FakeWorker(), max_size=1, max_waiting=1) as pool, pool.checkout():
        for _ in range(3):
            with pytest.raises(CheckoutTimeout):
                async with pool.checkout(timeout=1):
                    pass
        for _ in range(3):
            with trio.move_on_after(1) as scope:
                await pool.run(FakeResource.use)
            assert scope.cancelled_caught
        assert pool.stats.shed == 0


async def test_with_max_waiting_0_only_what_can_be_had_is_lent() -> None:
    """What is idle, and what can be opened; nobody stands behind somebody else."""
    worker = FakeWorker()
    async with open_pool(worker, max_size=2, max_waiting=0) as pool:
        async with pool.checkout(), pool.checkout():
            assert worker.count("init") == 2
            with pytest.raises(PoolOverloaded):
                await pool.run(FakeResource.use)
        assert await pool.run(FakeResource.use) in {1, 2}
        assert pool.stats.shed == 1


async def test_those_for_whom_something_opens_do_not_count_as_waiting() -> None:
    worker = FakeWorker()
    worker.always("init", Slow(1))
    outcomes: list[str] = []
    async with open_pool(worker, max_size=3, max_waiting=2) as pool, trio.open_nursery() as nursery:

        async def client() -> None:
            try:
                await pool.run(FakeResource.use, 1)
                outcomes.append("served")
            except PoolOverloaded:
                outcomes.append("refused")

        for _ in range(7):
            nursery.start_soon(client)
    assert outcomes == ["refused"] * 2 + ["served"] * 5


async def test_an_outage_is_told_rather_than_an_overload() -> None:
    """What is opening may fail: then its waiter gets that error, and the queue has room again."""
    worker = FakeWorker()
    worker.script("init", Slow(1, Fail(OSError("down"))))
    async with open_pool(worker, max_size=1, max_waiting=0) as pool:
        with pytest.raises(PoolUnavailable):
            await pool.run(FakeResource.use)
        assert await pool.run(FakeResource.use) == 1


# CoDel


class Load:
    """Clients that come at given times, each to hold a resource for a while."""

    def __init__(self, pool: Pool[FakeResource]) -> None:
        self.pool = pool
        self.waits: list[tuple[float, float]] = []
        """When each client came and how long it waited, of those that were served."""
        self.shed: list[tuple[float, float]] = []
        """The same, of those that were shed."""

    async def client(self, seconds: float) -> None:
        came = trio.current_time()
        try:
            async with self.pool.checkout(timeout=None):
                self.waits.append((came, trio.current_time() - came))
                await trio.sleep(seconds)
        except PoolOverloaded:
            self.shed.append((came, trio.current_time() - came))

    async def run(self, *, count: int, every: float, seconds: float) -> None:
        """Let ``count`` clients come, one ``every`` so many seconds, and wait for all of them."""
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(self.client, seconds)
                await trio.sleep(every)


async def test_a_burst_is_not_shed() -> None:
    """Everybody waits for longer than the target, but the queue is empty again within the interval."""
    async with open_pool(FakeWorker(), max_size=1, shedding=CoDel(target=0.05, interval=2)) as pool:
        load = Load(pool)
        for _ in range(5):
            await load.run(count=100, every=0, seconds=0.018)
            await trio.sleep(1)
        assert load.shed == []
        assert max(wait for _, wait in load.waits) > 1.5


async def test_a_standing_queue_is_shed_down_to_the_target() -> None:
    async with open_pool(FakeWorker(), max_size=1, shedding=CoDel(target=0.05, interval=2)) as pool:
        load = Load(pool)
        began = trio.current_time()
        await load.run(count=4000, every=0.005, seconds=0.01)  # twice as many as can be served, for 20 s
        assert len(load.shed) == pytest.approx(2000, rel=0.1), "what cannot be served is refused"
        assert min(wait for _, wait in load.shed) > 0.1, "nobody before twice the target"
        late = [wait for came, wait in load.waits if came > began + 6]
        assert max(late) < 0.2, "and who is served does not wait long any more"
        assert len(load.waits) == pytest.approx(2000, rel=0.1), "the resource is never without work"


async def test_nobody_is_shed_before_an_interval_has_passed() -> None:
    async with open_pool(FakeWorker(), max_size=1, shedding=CoDel(target=0.05, interval=2)) as pool:
        load = Load(pool)
        began = trio.current_time()
        await load.run(count=1000, every=0.005, seconds=0.01)
        assert load.shed
        assert min(came + wait for came, wait in load.shed) >= began + 2


async def test_a_queue_that_does_not_move_at_all_is_shed_too() -> None:
    """Nothing is checked in, so nobody is handed over: the keeper looks."""
    async with open_pool(FakeWorker(), max_size=1, shedding=CoDel(target=0.05, interval=2)) as pool:
        load = Load(pool)
        async with pool.checkout():
            began = trio.current_time()
            with trio.move_on_after(60):
                await load.run(count=5, every=0.01, seconds=1)
            assert len(load.shed) == 5
            assert trio.current_time() - began < 5


async def test_a_pool_that_keeps_up_is_never_slow() -> None:
    rng = random.Random(5)
    async with open_pool(FakeWorker(), max_size=4, shedding=CoDel(target=0.05, interval=2)) as pool:
        load = Load(pool)
        async with trio.open_nursery() as nursery:
            for _ in range(3000):
                nursery.start_soon(load.client, 0.02)
                await trio.sleep(rng.expovariate(1 / 0.01))  # it is busy for half of the time
        assert load.shed == []


async def test_a_pool_that_lends_at_once_now_and_then_is_not_slow_however_long_the_others_wait() -> None:
    """The smallest wait of the interval counts, and that of a direct checkout is 0."""
    async with open_pool(FakeWorker(), max_size=1, shedding=CoDel(target=0.05, interval=2)) as pool:
        load = Load(pool)
        for _ in range(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(load.client, 0.4)
                await trio.sleep(0.1)
                nursery.start_soon(load.client, 0)
            await trio.sleep(0.5)
        assert [wait for _, wait in load.waits if wait] == [pytest.approx(0.3)] * 20
        assert load.shed == []


async def test_the_pool_recovers_when_the_load_is_gone() -> None:
    async with open_pool(FakeWorker(), max_size=1, shedding=CoDel(target=0.05, interval=2)) as pool:
        load = Load(pool)
        await load.run(count=2000, every=0.005, seconds=0.01)
        assert load.shed
        await trio.sleep(5)
        load.shed.clear()
        await load.run(count=100, every=0, seconds=0.018)  # a burst like the one above
        assert load.shed == []


async def test_the_first_client_after_a_long_rest_is_not_judged_by_what_was_before() -> None:
    async with open_pool(FakeWorker(), max_size=1, shedding=CoDel(target=0.05, interval=2)) as pool:
        load = Load(pool)
        await load.run(count=2000, every=0.005, seconds=0.01)
        load.shed.clear()
        async with pool.checkout():
            await trio.sleep(1000)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(load.client, 0)
                await trio.sleep(1)  # for less than an interval
                nursery.cancel_scope.cancel()
        assert load.shed == []


async def test_shedding_says_how_long_the_client_has_waited() -> None:
    shedding = CoDel(target=0.05, interval=2)
    async with open_pool(FakeWorker(), name="db", max_size=1, shedding=shedding) as pool, pool.checkout():
        with pytest.raises(PoolOverloaded, match=r"pool 'db': shed after waiting [\d.]+ s; .*held by"):
            async with pool.checkout(timeout=60):
                pass


async def test_without_shedding_everybody_waits() -> None:
    async with open_pool(FakeWorker(), max_size=1) as pool:
        load = Load(pool)
        await load.run(count=1000, every=0.005, seconds=0.01)
        assert load.shed == []


# What giving up costs


async def test_those_who_gave_up_leave_nothing_behind_in_the_queue() -> None:
    for timeout in (5.0, 6.0, None):  # the pool's own, and others
        async with open_pool(FakeWorker(), max_size=1, checkout_timeout=5) as pool, trio.open_nursery() as nursery:
            queue = engine_of(pool).state.queue
            async with pool.checkout():
                nursery.start_soon(partial(wait_for_ever, pool))
                await wait_all_tasks_blocked()
                for _ in range(2000):
                    with trio.move_on_after(0.001):
                        async with pool.checkout(timeout=timeout):
                            pass
                assert len(queue) == 1
                assert len(queue._lane) + len(queue._heap) < 200
                nursery.cancel_scope.cancel()


async def test_those_who_gave_up_leave_nothing_behind_even_without_any_deadline() -> None:
    async with open_pool(FakeWorker(), max_size=1, checkout_timeout=None) as pool, trio.open_nursery() as nursery:
        queue = engine_of(pool).state.queue
        async with pool.checkout():
            nursery.start_soon(partial(wait_for_ever, pool))
            await wait_all_tasks_blocked()
            for _ in range(2000):
                with trio.move_on_after(0.001):
                    await pool.run(FakeResource.use)
            assert len(queue) == 1
            assert len(queue._lane) + len(queue._heap) < 200
            nursery.cancel_scope.cancel()


async def test_each_deadline_stands_after_many_others_were_given_up() -> None:
    late: list[float] = []
    rng = random.Random(3)
    async with open_pool(FakeWorker(), max_size=1) as pool, pool.checkout(), trio.open_nursery() as nursery:

        async def client(timeout: float) -> None:
            due = trio.current_time() + timeout
            with pytest.raises(CheckoutTimeout):
                async with pool.checkout(timeout=timeout):
                    pass
            late.append(trio.current_time() - due)

        async def quitter(timeout: float) -> None:
            async with pool.checkout(timeout=timeout):
                pass

        async with trio.open_nursery() as quitting:
            for _ in range(300):
                nursery.start_soon(client, rng.uniform(10, 20))
                for _ in range(3):
                    quitting.start_soon(quitter, rng.uniform(6, 20))
            await wait_all_tasks_blocked()
            quitting.cancel_scope.cancel()
        nursery.start_soon(client, 30.0)
    assert late == [pytest.approx(0, abs=1e-6)] * 301


async def wait_for_ever(pool: Pool[FakeResource]) -> None:
    async with pool.checkout(timeout=None):
        pass


@pytest.mark.parametrize("timeout", [5.0, 4.0])
async def test_many_who_time_out_together_cost_no_more_each_than_few(timeout: float) -> None:
    calls = []
    async with open_pool(FakeWorker(), max_size=1, checkout_timeout=5) as pool, pool.checkout():

        async def client() -> None:
            with pytest.raises(CheckoutTimeout):
                async with pool.checkout(timeout=timeout):
                    pass

        for waiters in (100, 1000):
            async with trio.open_nursery() as nursery:
                for _ in range(waiters):
                    nursery.start_soon(client)
                await trio.sleep(timeout - 0.1)
                assert pool.stats.waiting == waiters
                with counting_calls() as count:
                    await trio.sleep(0.2)
                calls.append(count())
        assert pool.stats.timed_out == 1100
    assert calls[1] < 12 * calls[0], "ten times as many"


async def test_cancelling_a_waiter_takes_as_many_steps_whether_few_wait_or_many() -> None:
    counts = []
    for waiters in (10, 1000):
        async with open_pool(FakeWorker(), max_size=1) as pool, pool.checkout(), trio.open_nursery() as nursery:
            scopes = [trio.CancelScope() for _ in range(waiters)]

            async def client(scope: trio.CancelScope, pool: Pool[FakeResource] = pool) -> None:
                with scope:
                    await pool.run(FakeResource.use)

            for scope in scopes:
                nursery.start_soon(client, scope)
            await wait_all_tasks_blocked()
            with counting_calls() as count:
                scopes[waiters // 2].cancel()
            counts.append(count())
            await wait_all_tasks_blocked()
            assert pool.stats.cancelled == 1
            nursery.cancel_scope.cancel()
    assert abs(counts[0] - counts[1]) <= 2, "trio's scheduler flips a coin in between"


@contextmanager
def counting_calls() -> Iterator[Callable[[], int]]:
    """Count the functions that are called in the block, by anybody in this thread."""
    calls = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(profile)
    try:
        yield lambda: calls
    finally:
        sys.setprofile(None)
