"""How many resources there are, how old they become, and when each goes."""

from __future__ import annotations

import math
from collections import Counter
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from nimblepool import CheckoutTimeout, CoDel, NoneIdle, Pool, PoolClosed, Reason, Verdict, open_pool
from nimblepool.testing import Fail, FakeResource, FakeWorker, Slow


def jump(seconds: float) -> None:
    """Let time pass while nobody runs: as when a callback of somebody else blocked the event loop."""
    cast("MockClock", trio.lowlevel.current_clock()).jump(seconds)


async def lend_all(pool: Pool[FakeResource], count: int) -> list[FakeResource]:
    """Check out ``count`` at the same time, so that as many are idle afterwards."""
    async with AsyncExitStack() as stack:
        return [(await stack.enter_async_context(pool.checkout())).resource for _ in range(count)]


# Size


async def test_resources_are_opened_one_by_one_as_they_are_needed() -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_size=3) as pool:
        for size in (1, 2, 3):
            await lend_all(pool, size)
            assert pool.stats.size == size
        with pytest.raises(CheckoutTimeout):
            await lend_all(pool, 4)
        assert worker.count("init") == 3


async def test_as_many_are_opened_as_wait_and_no_more() -> None:
    worker = FakeWorker()
    worker.always("init", Slow(1))
    async with open_pool(worker, max_size=10) as pool, trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(partial(pool.run, FakeResource.use, 1))
        await wait_all_tasks_blocked()
        assert pool.stats.opening == 4
        for _ in range(20):
            nursery.start_soon(partial(pool.run, FakeResource.use, 1))
        await wait_all_tasks_blocked()
        assert pool.stats.opening == 10


@pytest.mark.parametrize("reason", ["removed", "dead"])
async def test_min_size_is_kept(reason: str) -> None:
    worker = FakeWorker(watched=True)
    async with open_pool(worker, min_size=3) as pool:
        await pool.wait_ready()
        await trio.sleep(1000)
        if reason == "dead":
            worker.resources[0].kill()
        else:
            async with pool.checkout() as lease:
                lease.remove()
        await wait_all_tasks_blocked()
        assert worker.count("init") == 4
        assert pool.stats.idle == 3


async def test_min_size_does_not_wait_for_the_end_of_what_went() -> None:
    worker = FakeWorker(watched=True)
    worker.always("terminate", Slow(4))
    async with open_pool(worker, min_size=1) as pool:
        await pool.wait_ready()
        await pool.run(FakeResource.use)
        worker.resources[0].kill()
        await wait_all_tasks_blocked()
        assert (pool.stats.closing, pool.stats.idle) == (1, 1)


async def test_wait_ready_opens_what_it_needs_and_min_size_stays_what_it_is() -> None:
    worker = FakeWorker()
    async with open_pool(worker, min_size=1, max_size=5, max_idle=10) as pool:
        await pool.wait_ready(4)
        assert pool.stats.idle == 4
        await trio.sleep(11)
        assert pool.stats.size == 1


# Idleness


async def test_what_is_idle_too_long_is_closed_at_that_time_down_to_min_size() -> None:
    worker = FakeWorker()
    async with open_pool(worker, min_size=1, max_size=5, max_idle=10) as pool:
        await lend_all(pool, 4)
        await trio.sleep(9.99)
        assert pool.stats.size == 4
        await trio.sleep(0.02)
        assert pool.stats.size == 1
        assert Counter(reason for resource in worker.resources for reason in resource.terminated) == {Reason.IDLE: 3}


async def test_idleness_begins_with_the_end_of_the_latest_use() -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_idle=10) as pool:
        await pool.wait_ready(2)
        for _ in range(5):
            await trio.sleep(6)
            async with pool.checkout():  # the last one used is lent next, so it is always the same
                await trio.sleep(1)
        assert [resource.is_open for resource in worker.resources] == [False, True]
        await trio.sleep(10.01)
        assert pool.stats.size == 0


async def test_nothing_idle_too_long_is_lent_even_if_the_keeper_is_late() -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_idle=10) as pool:
        await pool.wait_ready(1)
        await wait_all_tasks_blocked()
        jump(20)
        async with pool.checkout() as lease:
            assert lease.resource.number == 2
        assert worker.resources[0].terminated == [Reason.IDLE]


async def test_what_min_size_keeps_is_lent_however_long_it_was_idle() -> None:
    worker = FakeWorker()
    async with open_pool(worker, min_size=1, max_idle=10) as pool:
        await pool.wait_ready()
        await trio.sleep(1000)
        async with pool.checkout(timeout=0) as lease:
            assert lease.resource.number == 1


async def test_more_than_min_size_are_idle_again_after_min_size_was_lowered() -> None:
    async with open_pool(FakeWorker(), min_size=3, max_size=3, max_idle=10) as pool:
        await pool.wait_ready()
        await trio.sleep(100)
        assert pool.stats.size == 3
        pool.resize(min_size=1)
        await wait_all_tasks_blocked()
        assert pool.stats.size == 1


# Age


async def test_ages_are_drawn_between_90_and_100_per_cent_of_max_age() -> None:
    worker = FakeWorker()
    ended: list[float] = []

    class Noting(FakeWorker):
        async def terminate(self, resource: FakeResource, reason: Reason) -> None:
            await super().terminate(resource, reason)
            ended.append(trio.current_time())

    worker = Noting()
    async with open_pool(worker, max_size=50, max_age=100) as pool:
        await pool.wait_ready(50)
        opened_at = trio.current_time()
        await trio.sleep(89.9)
        assert pool.stats.size == 50
        await trio.sleep(10.2)
        assert pool.stats.size == 0
    ages = [when - opened_at for when in ended]
    assert all(90 <= age <= 100 for age in ages)
    assert max(ages) - min(ages) > 5, "spread, so that they do not all reconnect at the same time"
    assert all(resource.terminated == [Reason.AGE] for resource in worker.resources)


async def test_nothing_too_old_is_lent_even_if_the_keeper_is_late() -> None:
    worker = FakeWorker()
    async with open_pool(worker, min_size=2, max_age=10) as pool:
        await pool.wait_ready()
        await wait_all_tasks_blocked()
        jump(10)
        async with pool.checkout() as lease:
            assert lease.resource.number == 3


async def test_nothing_too_old_is_handed_over() -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_size=1, max_age=10) as pool, trio.open_nursery() as nursery:
        numbers: list[int] = []

        async def client() -> None:
            async with pool.checkout(timeout=60) as lease:
                numbers.append(lease.resource.number)
                await trio.sleep(11)

        for _ in range(3):
            nursery.start_soon(client)
    assert numbers == [1, 2, 3]


async def test_what_is_leased_goes_at_checkin() -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_age=10) as pool:
        async with pool.checkout() as lease:
            await trio.sleep(50)
            assert lease.resource.is_open
        await wait_all_tasks_blocked()
        assert worker.resources[0].terminated == [Reason.AGE]


async def test_use_makes_nothing_younger_nor_does_a_ping() -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_age=100, ping_every=5) as pool:
        await pool.wait_ready(1)
        for _ in range(11):
            await trio.sleep(9.5)
            await pool.run(FakeResource.use)
        assert worker.count("ping") > 5
        assert worker.resources[0].terminated == [Reason.AGE]


# Uses


async def test_what_was_lent_max_uses_times_is_closed() -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_size=1, max_uses=3) as pool:
        numbers = [await pool.run(FakeResource.use) for _ in range(7)]
        await wait_all_tasks_blocked()
        assert numbers == [1, 1, 1, 2, 2, 2, 3]
        assert worker.resources[0].terminated == [Reason.USES]


async def test_a_checkout_that_the_worker_refuses_is_no_use() -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_size=1, max_uses=1) as pool:
        await pool.wait_ready(1)
        worker.script("checkout", Verdict.RESET)
        assert await pool.run(FakeResource.use) == 1


# Order


async def test_lifo_lets_the_rest_rest_and_fifo_takes_turns() -> None:
    worker = FakeWorker()
    async with open_pool(worker, order="lifo") as pool:
        await pool.wait_ready(3)
        assert len({await pool.run(FakeResource.use) for _ in range(9)}) == 1
    worker = FakeWorker()
    async with open_pool(worker, order="fifo") as pool:
        await pool.wait_ready(3)
        numbers = [await pool.run(FakeResource.use) for _ in range(9)]
        assert numbers == numbers[:3] * 3
        assert set(numbers) == {1, 2, 3}


# Resizing


async def test_growth_serves_who_waits() -> None:
    async with open_pool(FakeWorker(), max_size=1) as pool, trio.open_nursery() as nursery:
        async with pool.checkout():
            for _ in range(2):
                nursery.start_soon(partial(pool.run, FakeResource.use))
            await wait_all_tasks_blocked()
            assert pool.stats.waiting == 2
            pool.resize(max_size=3)
            await wait_all_tasks_blocked()
            assert pool.stats.waiting == 0
        assert pool.stats.max_size == 3


async def test_a_raised_min_size_is_filled_at_once() -> None:
    async with open_pool(FakeWorker()) as pool:
        pool.resize(min_size=4, max_size=4)
        await wait_all_tasks_blocked()
        assert pool.stats.idle == 4


async def test_shrinking_takes_the_idle_first_and_the_leased_at_checkin() -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_size=4) as pool, AsyncExitStack() as stack:
        await lend_all(pool, 4)
        leases = [await stack.enter_async_context(pool.checkout()) for _ in range(2)]
        pool.resize(max_size=1)
        await wait_all_tasks_blocked()
        assert pool.stats.size == 2, "both idle ones went; of the leased ones one will"
        assert all(lease.resource.is_open for lease in leases)
        with pytest.raises(CheckoutTimeout):
            await pool.run(FakeResource.use)
        for lease in leases:
            lease.release()
        await wait_all_tasks_blocked()
        assert pool.stats.size == pool.stats.idle == 1
        assert Counter(reason for one in worker.resources for reason in one.terminated) == {Reason.SURPLUS: 3}


async def test_shrinking_takes_what_is_opening_first_and_those_who_waited_are_served_all_the_same() -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_size=3) as pool, trio.open_nursery() as nursery:
        await pool.wait_ready(1)
        worker.always("init", Slow(50))
        for _ in range(3):
            nursery.start_soon(partial(pool.run, FakeResource.use, 1))
        await wait_all_tasks_blocked()
        assert (pool.stats.leased, pool.stats.opening) == (1, 2)
        pool.resize(max_size=1)
        await wait_all_tasks_blocked()
        assert (pool.stats.leased, pool.stats.opening) == (1, 0)
    assert pool.stats.waited == 2


async def test_shrinking_by_a_resource_that_is_pinged_for_a_client_sends_that_client_to_another() -> None:
    class Stubborn(FakeWorker):
        async def ping(self, resource: FakeResource) -> None:
            with trio.CancelScope(shield=True):  # so that retiring it does not end the ping
                await super().ping(resource)

    worker = Stubborn()
    async with open_pool(worker, max_size=2, order="fifo", ping_after=10) as pool, trio.open_nursery() as nursery:
        async with pool.checkout(), pool.checkout() as other:
            other.release()
            await trio.sleep(1)  # so that one has been idle longest: it is lent next, and goes first
        await trio.sleep(11)
        worker.script("ping", Slow(20))
        nursery.start_soon(partial(pool.run, FakeResource.use, 1))
        await wait_all_tasks_blocked()
        assert (pool.stats.checking, pool.stats.waiting) == (1, 1)
        pool.resize(max_size=1)
        await wait_all_tasks_blocked()
        assert (pool.stats.leased, pool.stats.waiting) == (1, 0)
    assert worker.count("init") == 2


async def test_impossible_sizes_are_refused_and_change_nothing() -> None:
    async with open_pool(FakeWorker(), min_size=2, max_size=4) as pool:
        for sizes in ({"max_size": 1}, {"min_size": 5}, {"min_size": -1}, {"max_size": 0}):
            with pytest.raises(ValueError, match=r"min_size|max_size"):
                pool.resize(**sizes)
        assert (pool.stats.min_size, pool.stats.max_size) == (2, 4)


# Refreshing


async def test_refresh_retires_everything_at_once_the_leased_at_checkin_and_the_opening_too() -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_size=3) as pool, trio.open_nursery() as nursery:
        await lend_all(pool, 2)
        worker.script("init", Slow(5))
        async with pool.checkout() as lease, pool.checkout() as other:
            nursery.start_soon(partial(pool.run, FakeResource.use))
            await wait_all_tasks_blocked()
            assert pool.stats.opening == 1
            other.release()
            await wait_all_tasks_blocked()
            pool.refresh()
            await wait_all_tasks_blocked()
            old = lease.resource
            assert old.is_open
        await wait_all_tasks_blocked()
        assert all(one.terminated == [Reason.REFRESH] for one in worker.resources[:2])
        numbers = {one.number for one in await lend_all(pool, 3)}
    assert not numbers & {1, 2}


async def test_a_resource_whose_opening_cannot_be_stopped_is_closed_when_it_was_refreshed_meanwhile() -> None:
    class Unstoppable(FakeWorker):
        async def init(self) -> FakeResource:
            unstoppable = trio.CancelScope(shield=True)
            unstoppable.__enter__()
            try:
                return await super().init()
            finally:
                unstoppable.__exit__(None, None, None)

    worker = Unstoppable()
    worker.script("init", Slow(3))
    async with open_pool(worker, max_size=1) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(partial(pool.run, FakeResource.use))
        await wait_all_tasks_blocked()
        pool.refresh()
    assert worker.resources[0].terminated == [Reason.REFRESH]
    assert pool.stats.waited == 1


async def test_a_spread_refresh_takes_one_after_the_other_and_lends_none_after_its_turn() -> None:
    worker = FakeWorker()
    async with open_pool(worker, min_size=4, max_size=4) as pool:
        await pool.wait_ready()
        pool.refresh(spread=40)
        sizes = []
        for _ in range(5):
            await wait_all_tasks_blocked()
            sizes.append(sum(resource.is_open for resource in worker.resources[:4]))
            await trio.sleep(10.01)
        assert sizes == [3, 2, 1, 0, 0]
        assert pool.stats.idle == 4, "each was replaced when it went"


async def test_none_is_lent_after_its_turn_even_if_the_keeper_is_late() -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_size=3) as pool:
        await pool.wait_ready(3)
        pool.refresh(spread=30)
        await wait_all_tasks_blocked()
        jump(30)
        assert {resource.number for resource in await lend_all(pool, 3)} == {4, 5, 6}


async def test_what_is_leased_at_its_turn_goes_at_checkin() -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_size=2) as pool:
        async with pool.checkout() as first, pool.checkout() as second:
            pool.refresh(spread=10)
            await trio.sleep(20)
            assert first.resource.is_open
            assert second.resource.is_open
        await wait_all_tasks_blocked()
        assert [resource.terminated for resource in worker.resources] == [[Reason.REFRESH]] * 2


async def test_a_second_refresh_does_not_postpone_the_first() -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_size=2) as pool:
        await pool.wait_ready(2)
        pool.refresh(spread=10)
        pool.refresh(spread=1000)
        await trio.sleep(11)
        assert [resource.is_open for resource in worker.resources] == [False, False]


@pytest.mark.parametrize("spread", [-1, math.inf, math.nan])
async def test_a_spread_must_be_finite_and_not_negative(spread: float) -> None:
    async with open_pool(FakeWorker()) as pool:
        with pytest.raises(ValueError, match="spread must be"):
            pool.refresh(spread)


# Pausing


async def test_a_paused_pool_lends_nothing_and_resuming_serves_in_order() -> None:
    served: list[int] = []
    async with open_pool(FakeWorker(), max_size=1) as pool, trio.open_nursery() as nursery:
        await pool.wait_ready(1)
        pool.pause()
        with pytest.raises(NoneIdle):
            pool.checkout_nowait()

        async def client(number: int) -> None:
            async with pool.checkout():
                served.append(number)

        for number in range(3):
            nursery.start_soon(client, number)
            await wait_all_tasks_blocked()
        assert not served
        pool.resume()
        await wait_all_tasks_blocked()
        assert served == [0, 1, 2]


async def test_deadlines_and_leases_go_on_during_a_pause() -> None:
    async with open_pool(FakeWorker(), max_size=2) as pool, pool.checkout() as lease:
        pool.pause()
        began = trio.current_time()
        with pytest.raises(CheckoutTimeout):
            async with pool.checkout(timeout=3):
                pass
        assert trio.current_time() - began == pytest.approx(3)
        assert await lease.resource.use() == 1
        lease.release()
        assert pool.stats.idle == 1


async def test_a_paused_pool_opens_nothing_for_waiters_and_keeps_min_size() -> None:
    worker = FakeWorker(watched=True)
    async with open_pool(worker, min_size=1) as pool, trio.open_nursery() as nursery:
        await pool.wait_ready()
        await trio.sleep(1000)
        pool.pause()
        for _ in range(3):
            nursery.start_soon(partial(pool.run, FakeResource.use))
        worker.resources[0].kill()
        await wait_all_tasks_blocked()
        assert (worker.count("init"), pool.stats.idle) == (2, 1)
        pool.resume()


# Broadcasting


async def test_a_message_reaches_the_idle_and_its_verdicts_are_followed() -> None:
    worker = FakeWorker()
    async with open_pool(worker) as pool:
        await pool.wait_ready(5)
        async with pool.checkout():
            worker.script("message", Verdict.OK, Verdict.RESET, Verdict.REMOVE)
            pool.broadcast("new password")
            assert worker.count("message") == 4
            assert pool.stats.checking == 1
            await wait_all_tasks_blocked()
            assert worker.count("reset") == 1
            assert pool.stats.size == 4


async def test_refresh_from_one_message_retires_all() -> None:
    worker = FakeWorker()
    async with open_pool(worker) as pool:
        await pool.wait_ready(3)
        worker.script("message", Verdict.OK, Verdict.REFRESH)
        pool.broadcast("failed over")
        assert worker.count("message") == 2, "the third one is gone before it is asked"
        await wait_all_tasks_blocked()
        assert pool.stats.size == 0
        assert await pool.run(FakeResource.use) == 4


async def test_what_dies_at_once_is_not_opened_again_and_again_without_a_delay() -> None:
    """A server that accepts and drops the connection is no better than one that refuses it."""
    worker = FakeWorker(watched=True)
    worker.always("init", Slow(0.01))
    worker.always("watch", Fail(OSError("dropped")))
    async with open_pool(worker, min_size=1, max_size=1) as pool:
        await trio.sleep(60)
        assert 3 < worker.count("init") < 50
        worker.always("watch", None)
        await trio.sleep(60)
        assert pool.stats.idle == 1


@pytest.mark.parametrize("verdicts", [[Verdict.RESET, Verdict.OK], [Verdict.OK, Verdict.RESET], [Verdict.RESET] * 2])
async def test_a_reset_that_a_message_asked_for_does_not_change_whose_turn_it_is(verdicts: list[Verdict]) -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_idle=10) as pool:
        async with pool.checkout() as last, pool.checkout() as first:
            numbers = first.resource.number, last.resource.number
            first.release()
            await trio.sleep(1)
        await trio.sleep(1)
        worker.script("message", *verdicts)
        worker.script("reset", Slow(2), Slow(1))
        pool.broadcast("authenticate again")
        await trio.sleep(3)
        with pool.checkout_nowait() as lease:
            assert lease.resource.number == numbers[1], "the last one used"
        await trio.sleep(5.1)
        assert [one.number for one in worker.open_now] == [numbers[1]], "the other has been idle for 10 s"


async def test_a_message_is_no_use() -> None:
    """A reset that a message asked for does not make a resource look used: the pool could never shrink."""
    worker = FakeWorker()
    worker.always("message", Verdict.RESET)
    async with open_pool(worker, max_idle=10) as pool:
        await pool.wait_ready(2)
        for _ in range(3):
            await trio.sleep(4)
            pool.broadcast("authenticate again")
        assert worker.count("reset") == 4
        assert pool.stats.size == 0


# Draining


async def test_draining_closes_what_nobody_waits_for() -> None:
    worker = FakeWorker()
    async with open_pool(worker, min_size=2, max_size=3) as pool:
        await pool.wait_ready(3)
        async with pool.checkout() as lease, trio.open_nursery() as nursery:
            nursery.start_soon(pool.drain)
            await wait_all_tasks_blocked()
            assert pool.stats.size == 1
            with pytest.raises(PoolClosed):
                pool.checkout_nowait()
            lease.release()
        assert pool.stats.size == 0
        await trio.sleep(100)
        assert worker.count("init") == 3, "min_size is of no concern any more"


async def test_draining_an_unused_pool_returns_at_once() -> None:
    async with open_pool(FakeWorker(), min_size=2) as pool:
        await pool.wait_ready()
        began = trio.current_time()
        await pool.drain()
        assert trio.current_time() == began


async def test_cancelling_a_drain_stops_the_waiting_and_not_the_draining() -> None:
    async with open_pool(FakeWorker()) as pool, pool.checkout():
        with trio.move_on_after(1) as scope:
            await pool.drain()
        assert scope.cancelled_caught
        with pytest.raises(PoolClosed):
            await pool.run(FakeResource.use)


async def test_waiting_for_readiness_of_a_pool_that_closes() -> None:
    worker = FakeWorker()
    worker.always("init", Slow(100))
    async with open_pool(worker, init_timeout=1000) as pool, trio.open_nursery() as nursery:

        async def client() -> None:
            with pytest.raises(PoolClosed):
                await pool.wait_ready(1)

        nursery.start_soon(client)
        await wait_all_tasks_blocked()
        await pool.close()


# The keeper


class KeeperCount(trio.abc.Instrument):
    """Counts how often the keeper of any pool runs."""

    def __init__(self) -> None:
        self.steps = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += task.name == "pool: keeper"


def count_keeper() -> KeeperCount:
    counter = KeeperCount()
    trio.lowlevel.add_instrument(counter)
    return counter


async def test_the_keeper_sleeps_while_there_is_nothing_to_do() -> None:
    async with open_pool(FakeWorker(), min_size=3, max_size=3, max_idle=10, shedding=CoDel()) as pool:
        await pool.wait_ready()
        await wait_all_tasks_blocked()
        keeper = count_keeper()
        for _ in range(100):
            await lend_all(pool, 3)
            await trio.sleep(10)
        assert keeper.steps == 0


async def test_the_keeper_wakes_once_for_what_is_due_together() -> None:
    async with open_pool(FakeWorker(), max_size=50, max_idle=10) as pool:
        await lend_all(pool, 50)
        await wait_all_tasks_blocked()
        keeper = count_keeper()
        await trio.sleep(1000)
        assert pool.stats.size == 0
        assert keeper.steps <= 2


async def test_waiters_that_were_served_wake_the_keeper_once_at_most_for_each_timeout() -> None:
    """Their timers are not cancelled one by one: the keeper looks once at the first deadline, and sets the next."""
    async with open_pool(FakeWorker(), max_size=1, checkout_timeout=5) as pool:
        await pool.wait_ready(1)
        keeper = count_keeper()
        for _ in range(50):
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(partial(pool.run, FakeResource.use, 0.25))
        assert pool.stats.waited == 150
        assert keeper.steps <= 50 / 5 + 1
        await trio.sleep(5)
        before = keeper.steps
        await trio.sleep(1000)
        assert keeper.steps == before


async def test_there_is_one_timer_for_all_resources_and_no_task() -> None:
    async with open_pool(FakeWorker(), max_size=100, max_idle=10, max_age=50, ping_every=5) as pool:
        before = trio.lowlevel.current_statistics().tasks_living
        await pool.wait_ready(100)
        await wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == before
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == pytest.approx(5)
        assert timers() <= 2


def timers() -> int:
    """Return how many deadlines trio watches over."""
    runner = cast("Any", trio._core._run.GLOBAL_RUN_CONTEXT).runner
    return int(runner.deadlines._active)


async def test_waiting_for_more_than_a_smaller_pool_may_have_ends() -> None:
    worker = FakeWorker()
    worker.always("init", Slow(5))
    async with open_pool(worker, max_size=5) as pool, trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(ValueError, match="max_size, which is 2 by now"):
                await pool.wait_ready(5)

        nursery.start_soon(wait)
        await trio.sleep(1)
        pool.resize(max_size=2)
