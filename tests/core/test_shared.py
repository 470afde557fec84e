"""Resources that several clients use at a time."""

from __future__ import annotations

import sys
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from nimblepool import CheckoutTimeout, NoneIdle, PoolUnavailable, Reason, Verdict, open_pool
from nimblepool.testing import Fail, FakeResource, FakeWorker, Slow, check_balance

if TYPE_CHECKING:
    from nimblepool import Lease, Pool


async def take(pool: Pool[FakeResource], count: int) -> list[Lease[FakeResource]]:
    return [await pool.acquire() for _ in range(count)]


def give(*leases: Lease[FakeResource]) -> None:
    for lease in leases:
        lease.release()


def loads(leases: list[Lease[FakeResource]]) -> list[int]:
    """Return how many leases there are on each resource, the busiest first."""
    return sorted(Counter(lease.resource.number for lease in leases).values(), reverse=True)


async def test_one_resource_carries_as_many_leases_as_its_capacity() -> None:
    worker = FakeWorker(capacity=3)
    async with open_pool(worker, max_size=1) as pool:
        leases = await take(pool, 3)
        assert worker.count("init") == 1
        with pytest.raises(NoneIdle):
            pool.checkout_nowait()
        give(leases[0])
        with pool.checkout_nowait() as lease:
            assert lease.resource is leases[1].resource
        give(*leases)
        assert pool.stats.idle == 1


async def test_the_least_loaded_is_lent_first() -> None:
    worker = FakeWorker(capacity=10)
    async with open_pool(worker, max_size=3) as pool:
        await pool.wait_ready(3)
        leases = await take(pool, 9)
        assert loads(leases) == [3, 3, 3]
        # unload one of them: the next ones go there
        unloaded = leases[0].resource
        on_it = [lease for lease in leases if lease.resource is unloaded]
        give(*on_it)
        more = await take(pool, 3)
        assert {lease.resource for lease in more} == {unloaded}
        give(*leases, *more)


async def test_a_new_one_is_opened_when_all_are_full() -> None:
    worker = FakeWorker(capacity=2)
    async with open_pool(worker, max_size=3) as pool:
        leases: list[Lease[FakeResource]] = []
        sizes = []
        for _ in range(6):
            leases += await take(pool, 1)
            sizes.append(pool.stats.size)
        assert sizes == [1, 1, 2, 2, 3, 3]
        with pytest.raises(CheckoutTimeout):
            await pool.acquire(timeout=1)
        give(*leases)


async def test_a_burst_opens_one() -> None:
    """The capacity is not known before the first one is open: all wait for it."""
    worker = FakeWorker(capacity=100)
    worker.always("init", Slow(1))
    async with open_pool(worker, max_size=10) as pool, trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(partial(pool.run, FakeResource.use, 5))
        await trio.sleep(2)
        assert worker.count("init") == 1
        assert pool.stats.leases == 50


async def test_a_burst_beyond_the_capacity_opens_as_many_as_it_needs() -> None:
    worker = FakeWorker(capacity=4)
    worker.always("init", Slow(1))
    async with open_pool(worker, max_size=10) as pool, trio.open_nursery() as nursery:
        for _ in range(12):
            nursery.start_soon(partial(pool.run, FakeResource.use, 5))
        await trio.sleep(2.5)
        assert worker.count("init") == 3
        assert pool.stats.leases == 12
        for _ in range(8):
            nursery.start_soon(partial(pool.run, FakeResource.use, 5))
        await trio.sleep(1.5)
        assert worker.count("init") == 5, "now it knows: two at a time"
        assert pool.stats.leases == 20


async def test_a_burst_that_needs_one_that_cannot_be_opened_fails_as_one() -> None:
    worker = FakeWorker(capacity=10)
    worker.script("init", Slow(1, Fail(OSError("down"))))
    failures: list[PoolUnavailable] = []
    async with open_pool(worker) as pool, trio.open_nursery() as nursery:

        async def client() -> None:
            try:
                await pool.run(FakeResource.use)
            except PoolUnavailable as error:
                failures.append(error)

        for _ in range(5):
            nursery.start_soon(client)
    assert len(failures) == 5
    assert worker.count("init") == 1


async def test_waiters_are_served_in_order_whichever_resource_comes_free() -> None:
    worker = FakeWorker(capacity=2)
    served: list[int] = []
    async with open_pool(worker, max_size=2) as pool, trio.open_nursery() as nursery:
        leases = await take(pool, 4)

        async def client(number: int) -> None:
            lease = await pool.acquire(owner=None)
            served.append(number)
            leases.append(lease)

        for number in range(6):
            nursery.start_soon(client, number)
            await wait_all_tasks_blocked()
        for turn in (3, 0, 1, 4, 2, 5):
            leases[turn].release()
            await wait_all_tasks_blocked()
        assert served == list(range(6))
        give(*leases)


# A capacity that changes


async def test_more_capacity_serves_who_waits() -> None:
    worker = FakeWorker(capacity=1)
    async with open_pool(worker, max_size=1) as pool, trio.open_nursery() as nursery:
        leases = await take(pool, 1)
        for _ in range(3):
            nursery.start_soon(pool.run, FakeResource.use)
        await wait_all_tasks_blocked()
        worker.capacity_now = 3
        pool.refresh_capacity()
        await wait_all_tasks_blocked()
        assert pool.stats.waiting == 0
        give(*leases)


async def test_more_capacity_is_noticed_at_the_next_checkin_by_itself() -> None:
    worker = FakeWorker(capacity=2)
    async with open_pool(worker, max_size=1) as pool, trio.open_nursery() as nursery:
        leases = await take(pool, 2)
        for _ in range(3):
            nursery.start_soon(partial(pool.run, FakeResource.use, 1))
        await wait_all_tasks_blocked()
        worker.capacity_now = 4
        give(leases[0])
        await wait_all_tasks_blocked()
        assert pool.stats.leases == 4
        give(leases[1])


async def test_less_capacity_lets_leases_finish_and_takes_no_new_one_until_there_is_room() -> None:
    worker = FakeWorker(capacity=4)
    async with open_pool(worker, max_size=1) as pool:
        leases = await take(pool, 4)
        worker.capacity_now = 2
        pool.refresh_capacity()
        assert all(lease.resource.is_open for lease in leases)
        for lease, free in zip(leases, (False, False, True, True), strict=True):
            give(lease)
            try:
                with pool.checkout_nowait():
                    assert free
            except NoneIdle:
                assert not free
        assert worker.count("init") == 1


async def test_at_capacity_0_a_resource_takes_no_new_lease_and_another_is_opened() -> None:
    worker = FakeWorker(capacity=4)
    async with open_pool(worker, max_size=2) as pool:
        leases = await take(pool, 1)
        worker.script("capacity", 0)
        pool.refresh_capacity()
        more = await take(pool, 1)
        assert (leases[0].resource.number, more[0].resource.number) == (1, 2)
        give(*leases, *more)


async def test_an_idle_resource_without_capacity_comes_back() -> None:
    worker = FakeWorker(capacity=4)
    async with open_pool(worker, max_size=1) as pool, trio.open_nursery() as nursery:
        await pool.wait_ready(1)
        worker.capacity_now = 0
        pool.refresh_capacity()
        assert pool.stats.idle == 1
        with pytest.raises(NoneIdle):
            pool.checkout_nowait()
        nursery.start_soon(pool.run, FakeResource.use)
        await wait_all_tasks_blocked()
        assert pool.stats.waiting == 1
        worker.capacity_now = 4
        pool.refresh_capacity()
        await wait_all_tasks_blocked()
        assert pool.stats.waited == 1
        assert worker.count("init") == 1


async def test_an_idle_resource_without_capacity_is_looked_after_like_any_other() -> None:
    worker = FakeWorker(capacity=4)
    async with open_pool(worker, max_idle=10) as pool:
        await pool.wait_ready(1)
        worker.capacity_now = 0
        pool.refresh_capacity()
        pool.broadcast("news")
        assert worker.count("message") == 1
        await trio.sleep(10.1)
        assert worker.resources[0].terminated == [Reason.IDLE]


async def test_while_draining_resources_without_capacity_are_not_opened_over_and_over() -> None:
    worker = FakeWorker(capacity=0)
    worker.always("init", Slow(0.1))
    async with open_pool(worker, max_size=2, checkout_timeout=3.0) as pool:

        async def give_up() -> None:
            with pytest.raises(CheckoutTimeout):
                await pool.run(FakeResource.use)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(give_up)
            await wait_all_tasks_blocked()
            await pool.drain()
        assert worker.count("init") <= 2


async def test_draining_ends_with_the_last_lease_even_if_its_resource_has_no_capacity() -> None:
    worker = FakeWorker(capacity=4)
    async with open_pool(worker) as pool:
        await pool.wait_ready(1)
        leases = await take(pool, 2)
        worker.capacity_now = 0
        drained = False

        async def drain() -> None:
            nonlocal drained
            await pool.drain()
            drained = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain)
            await wait_all_tasks_blocked()
            give(*leases)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert drained
        assert pool.stats.size == 0


async def test_asking_again_changes_nothing_else() -> None:
    """Neither the order in which resources are lent nor the time at which they have been idle too long."""
    worker = FakeWorker(capacity=1)
    async with open_pool(worker, max_idle=10) as pool:
        first, second = await take(pool, 2)
        numbers = first.resource.number, second.resource.number
        give(second)
        await trio.sleep(5)
        give(first)
        for _ in range(3):
            pool.refresh_capacity()
        with pool.checkout_nowait() as lease:
            assert lease.resource.number == numbers[0], "the last one used"
        await trio.sleep(5.1)
        assert [one.number for one in worker.open_now] == [numbers[0]]


async def test_asking_again_on_a_pool_that_does_not_share_is_harmless() -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_size=2) as pool, pool.checkout():
        await pool.run(FakeResource.use)
        pool.refresh_capacity()
        assert (pool.stats.leased, pool.stats.idle) == (1, 1)


# A capacity that is nonsense

BAD = [
    pytest.param(Fail(OSError("careless")), "careless", id="raises"),
    pytest.param("many", "what FakeWorker.capacity returns must be a whole number, not 'many'", id="text"),
    pytest.param(1.5, "what FakeWorker.capacity returns must be a whole number, not 1.5", id="part"),
    pytest.param(-1, "what FakeWorker.capacity returns must be 0 or more, not -1", id="negative"),
]


@pytest.mark.parametrize(("step", "text"), BAD)
async def test_a_bad_capacity_of_a_new_resource_costs_that(
    step: object, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = FakeWorker(capacity=2)
    worker.script("capacity", step)
    async with open_pool(worker, max_size=1) as pool:
        assert await pool.run(FakeResource.use) == 2
        assert worker.resources[0].terminated == [Reason.FAILED]
    assert "FakeWorker.capacity failed; the resource is removed" in caplog.text
    assert text in caplog.text


@pytest.mark.parametrize(("step", "text"), BAD)
async def test_a_bad_capacity_of_a_leased_one_lets_its_leases_finish(
    step: object, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = FakeWorker(capacity=2)
    async with open_pool(worker, max_size=2) as pool:
        leases = await take(pool, 1)
        worker.script("capacity", step)
        leases += await take(pool, 1)  # asked for at every lease
        assert [lease.resource.number for lease in leases] == [1, 1]
        assert leases[0].resource.is_open
        assert (await pool.run(FakeResource.use)) == 2
        give(*leases)
        await wait_all_tasks_blocked()
        assert worker.resources[0].terminated == [Reason.FAILED]
    assert text in caplog.text


async def test_a_capacity_that_is_never_right_does_not_open_again_and_again_without_a_delay() -> None:
    worker = FakeWorker(capacity=2)
    worker.always("init", Slow(0.01))
    worker.always("capacity", "many")
    async with open_pool(worker, max_size=1, on_open_failure="wait") as pool:
        with pytest.raises((CheckoutTimeout, PoolUnavailable)):
            await pool.run(FakeResource.use)
        assert worker.count("init") < 30


# Retiring


async def test_retirement_waits_for_the_last_lease() -> None:
    worker = FakeWorker(capacity=3)
    async with open_pool(worker, max_size=1) as pool:
        leases = await take(pool, 3)
        pool.refresh()
        with pytest.raises(CheckoutTimeout):
            await pool.acquire(timeout=1)
        for lease in leases:
            await wait_all_tasks_blocked()
            assert lease.resource.is_open
            give(lease)
        await wait_all_tasks_blocked()
        assert worker.resources[0].terminated == [Reason.REFRESH]


async def test_one_bad_lease_lets_the_others_finish() -> None:
    worker = FakeWorker(capacity=3)
    async with open_pool(worker, max_size=2) as pool:
        bad, *others = await take(pool, 3)
        bad.remove()
        give(bad)
        await wait_all_tasks_blocked()
        assert await others[0].resource.use() == 1
        assert await pool.run(FakeResource.use) == 2, "new leases go to another"
        give(*others)
        await wait_all_tasks_blocked()
        assert worker.resources[0].terminated == [Reason.REMOVED]


async def test_a_reset_waits_for_the_last_lease_too() -> None:
    worker = FakeWorker(capacity=3)
    async with open_pool(worker, max_size=1) as pool:
        dirty, *others = await take(pool, 3)
        worker.script("checkin", Verdict.RESET)
        give(dirty)
        await wait_all_tasks_blocked()
        assert worker.count("reset") == 0, "others use it still"
        with pytest.raises(NoneIdle):
            pool.checkout_nowait()
        give(*others)
        await wait_all_tasks_blocked()
        assert worker.count("reset") == 1
        assert await pool.run(FakeResource.use) == 1


async def test_uses_are_counted_per_lease() -> None:
    worker = FakeWorker(capacity=5)
    async with open_pool(worker, max_size=2, max_uses=3) as pool:
        leases = await take(pool, 5)
        assert loads(leases) == [3, 2]
        give(*leases)
        await wait_all_tasks_blocked()
        assert [one.terminated for one in worker.resources] == [[Reason.USES], []]


async def test_a_shared_resource_in_use_is_not_pinged() -> None:
    worker = FakeWorker(capacity=5)
    async with open_pool(worker, ping_every=5, ping_after=5) as pool:
        leases = await take(pool, 1)
        await trio.sleep(20)
        leases += await take(pool, 1)
        assert worker.count("ping") == 0
        give(*leases)
        await trio.sleep(6)
        assert worker.count("ping") == 1


async def test_a_crowd_on_shared_resources() -> None:
    worker = FakeWorker(capacity=7)
    most = 0
    async with open_pool(worker, max_size=3) as pool, trio.open_nursery() as nursery:

        async def client(number: int) -> None:
            nonlocal most
            for _ in range(5):
                async with pool.checkout(timeout=None):
                    most = max(most, pool.stats.leases)
                    await trio.sleep(0.1 + number % 3)

        for number in range(100):
            nursery.start_soon(client, number)
        await trio.sleep(1)
        check_balance(pool)
    assert most == 21
    assert worker.count("init") == 3


# Nothing scans


async def test_lending_takes_as_many_steps_with_many_resources_as_with_few() -> None:
    counts = []
    for size in (5, 300):
        async with open_pool(FakeWorker(capacity=4), max_size=size) as pool:
            await pool.wait_ready(size)
            leases = await take(pool, size + size // 2)
            counts.append(calls_of_a_lease(pool))
            give(*leases)
    assert counts[1] <= counts[0] + 5


def calls_of_a_lease(pool: Pool[FakeResource]) -> int:
    """Count the functions that are called while one lease begins and ends."""
    calls = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(profile)
    try:
        with pool.checkout_nowait():
            pass
    finally:
        sys.setprofile(None)
    return calls
