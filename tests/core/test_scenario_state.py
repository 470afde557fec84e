"""Bugs that real pools had: what is idle, leased or gone was mistaken."""

from __future__ import annotations

import gc
import math
import random
import warnings
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from nimblepool import (
    CheckoutTimeout,
    Lease,
    LeaseExpired,
    Pool,
    Reason,
    Verdict,
    open_keyed_pool,
    open_pool,
)
from nimblepool.testing import FakeResource, FakeWorker, Slow, check_balance

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator


class Workers(dict[str, FakeWorker]):
    """A factory for keyed pools that keeps what it made."""

    def __call__(self, key: str) -> FakeWorker:
        return self.setdefault(key, FakeWorker())


# Reserved is not idle


@pytest.mark.parametrize(
    "meddle",
    [
        lambda pool: pool.refresh(),
        lambda pool: pool.resize(max_size=1),
        lambda pool: pool.broadcast("go away"),
        lambda pool: pool.pause(),
    ],
    ids=["refresh", "resize", "broadcast", "pause"],
)
async def test_a_resource_that_was_promised_is_not_idle(meddle: Callable[[Pool[FakeResource]], None]) -> None:
    """Eviction closed a connection that was already promised to a request (httpcore #1110)."""
    worker = FakeWorker()
    worker.always("message", Verdict.REMOVE)
    used: list[int] = []
    async with open_pool(worker, max_size=2) as pool, trio.open_nursery() as nursery:

        async def waiter() -> None:
            async with pool.checkout() as lease:
                used.append(await lease.resource.use(1))  # it would raise if it were closed

        async with pool.checkout(), pool.checkout() as lease:
            nursery.start_soon(waiter)
            await wait_all_tasks_blocked()
            promised = lease.resource
            lease.release()
            meddle(pool)  # before the waiter has run
            assert pool.stats.idle == 0
            await trio.sleep(2)
        assert used == [promised.number]


async def test_a_resource_that_was_promised_under_one_key_is_not_taken_for_another() -> None:
    """The same for the room of a keyed pool (httpcore #1110)."""
    async with open_keyed_pool(Workers(), max_total=1) as keyed:
        for _ in range(10):  # trio runs the two keys' clients in random order
            lease = await keyed.acquire("a")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keyed.run, "a", FakeResource.use)
                await wait_all_tasks_blocked()
                lease.release()
                nursery.start_soon(keyed.run, "b", FakeResource.use)  # wants the room of key "a"
        assert keyed.size == 1


async def test_room_for_another_key_is_made_by_what_is_idle_and_not_by_what_is_in_use() -> None:
    """The one in use is not even marked for closing (httpcore #1110)."""
    workers = Workers()
    async with open_keyed_pool(workers, max_total=2) as keyed:
        async with keyed.checkout("a") as in_use:
            await keyed.run("a", FakeResource.use)
            assert await keyed.run("b", FakeResource.use) == 1
            assert workers["a"].resources[1].terminated == [Reason.EVICTED]
            kept = in_use.resource
        async with keyed.checkout("a", timeout=0) as lease:
            assert lease.resource is kept


async def test_taking_turns_under_many_keys_never_closes_what_is_in_use() -> None:
    """The same under load: ``use`` raises if its resource is closed meanwhile (httpcore #1110)."""
    rng = random.Random(20)
    async with open_keyed_pool(Workers(), max_total=4, checkout_timeout=None) as keyed:

        async def client() -> None:
            for _ in range(5):
                await keyed.run(rng.choice("abcdefgh"), FakeResource.use, rng.choice([0, 0.5, 1]))

        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(client)
        assert sum(stats.lost for stats in keyed.stats.values()) == 0


# Busy is not idle


async def test_busy_resources_neither_shorten_nor_prolong_the_life_of_idle_ones() -> None:
    """The keep-alive limit was compared with all connections, so that busy ones closed idle ones (httpcore #920)."""
    worker = FakeWorker()
    async with open_pool(worker, min_size=2, max_size=10, max_idle=30) as pool:
        async with AsyncExitStack() as busy:
            for _ in range(8):
                await busy.enter_async_context(pool.checkout())
            for _ in range(20):
                assert await pool.run(FakeResource.use, 1) == 9
                await trio.sleep(1)
            await trio.sleep(28)
            assert worker.resources[8].is_open, "it is idle for 29 s"
            await trio.sleep(2)
            assert worker.resources[8].terminated == [Reason.IDLE]
            assert pool.stats.leased == 8
        assert pool.stats.idle == 8, "idleness is counted from the return"
        await trio.sleep(31)
        assert pool.stats.idle == 2, "and min_size stay"


async def test_busy_resources_of_other_keys_do_not_cost_an_idle_one_its_place() -> None:
    """The same with keys: an idle resource goes only when there is no room left (httpcore #920)."""
    workers = Workers()
    async with open_keyed_pool(workers, max_total=5) as keyed:
        await keyed.run("quiet", FakeResource.use)
        async with keyed.checkout("a"), keyed.checkout("a"), keyed.checkout("b"), keyed.checkout("b"):
            await trio.sleep(100)
            assert await keyed.run("quiet", FakeResource.use) == 1
            async with keyed.checkout("c"):
                assert workers["quiet"].resources[0].terminated == [Reason.EVICTED]
                with pytest.raises(CheckoutTimeout):
                    await keyed.run("quiet", FakeResource.use)
        assert keyed.size == 5


# The collector


@pytest.fixture
def caught() -> Iterator[list[warnings.WarningMessage]]:
    """Let the collector run only when the test says so, and note the warnings that come of it."""
    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always")
        gc.disable()
        yield messages
        gc.enable()


async def test_the_lease_of_an_abandoned_generator_comes_back(caught: list[warnings.WarningMessage]) -> None:
    """The collector closed a generator, whose clean-up ran inside the pool (httpcore #1108, redis-py #3289)."""
    worker = FakeWorker()

    async def rows(pool: Pool[FakeResource]) -> AsyncGenerator[int]:
        async with pool.checkout() as lease:
            while True:
                yield await lease.resource.use()

    async with open_pool(worker, max_size=1) as pool:
        for number in range(1, 4):
            generator = rows(pool)
            assert await anext(generator) == number
            del generator
            gc.collect()
            assert "garbage collected before it had been exhausted" in str(caught.pop().message)  # trio's words
            assert pool.stats.leased == 1, "nothing happens in the collector"
            await wait_all_tasks_blocked()
            assert worker.resources[-1].terminated == [Reason.REMOVED], "its rows were read in part"


class CollectingWorker(FakeWorker):
    """Has the collector run in the middle of the pool's work, and notes whether that changed anything."""

    def __init__(self) -> None:
        super().__init__(capacity=2)
        self.when = ""
        self.pool: Pool[FakeResource] | None = None
        self.disturbed = False

    def collect(self, callback: str) -> None:
        if callback == self.when and self.pool is not None:
            before = self.pool.stats
            gc.collect()
            self.disturbed = self.pool.stats != before
            self.when = "never again"

    def checkout(self, resource: FakeResource, request: object) -> Verdict:
        self.collect("checkout")
        return super().checkout(resource, request)

    def capacity(self, resource: FakeResource) -> int:
        self.collect("capacity")
        return super().capacity(resource)

    def checkin(self, resource: FakeResource, error: BaseException | None) -> Verdict:
        self.collect("checkin")
        return super().checkin(resource, error)


async def lose_a_lease(pool: Pool[FakeResource]) -> None:
    cycle: list[object] = [await pool.acquire(owner=None)]
    cycle.append(cycle)  # only the collector can free it


@pytest.mark.parametrize("callback", ["checkout", "capacity", "checkin"])
async def test_a_lease_that_is_collected_amid_the_pools_work_comes_back_afterwards(
    callback: str, caught: list[warnings.WarningMessage]
) -> None:
    """The collector entered the pool while it was being changed (httpcore #1108, redis-py #3289)."""
    worker = CollectingWorker()
    async with open_pool(worker, max_size=1) as pool:
        await pool.wait_ready(1)
        await lose_a_lease(pool)
        worker.when, worker.pool = callback, pool
        async with pool.checkout():
            pass
        assert worker.when == "never again", "the collector has run"
        assert not worker.disturbed
        await wait_all_tasks_blocked()
        assert f"never released; it was acquired at {__file__}:" in str(caught.pop().message)
        assert worker.resources[0].terminated == [Reason.ABANDONED]
        assert pool.stats.leases == 0
        check_balance(pool)


async def test_a_lost_lease_is_noticed_at_once_even_if_it_had_to_wait(caught: list[warnings.WarningMessage]) -> None:
    """Nothing in the pool may keep a lease alive that its client has lost."""
    async with open_pool(FakeWorker(), max_size=1, checkout_timeout=3600) as pool:
        await lose_a_lease(pool)  # waits for the first resource to open
        gc.collect()
        await wait_all_tasks_blocked()
        assert pool.stats.leases == 0
        assert "never released" in str(caught.pop().message)


async def test_a_lease_that_is_collected_while_the_pool_closes_does_not_hold_it_up(
    caught: list[warnings.WarningMessage],
) -> None:
    """The same, at the worst time (httpcore #1108, redis-py #3289)."""
    worker = FakeWorker()
    worker.always("terminate", Slow(1))
    async with open_pool(worker, max_size=2) as pool, trio.open_nursery() as nursery:
        await pool.wait_ready(1)
        await lose_a_lease(pool)
        started = trio.current_time()
        nursery.start_soon(pool.close)
        await wait_all_tasks_blocked()
        gc.collect()
    assert trio.current_time() - started == pytest.approx(1)
    assert "never released" in str(caught.pop().message)


# Permits of shared resources


async def test_leases_that_end_early_leave_no_permit_behind() -> None:
    """Each stream closed early cost a permit, until 100 were "open" without traffic (httpcore #943)."""
    rng = random.Random(23)
    worker = FakeWorker(capacity=10)
    worker.always("checkin", Verdict.OK)  # a stream that broke does not break its connection
    async with open_pool(worker, max_size=1, checkout_timeout=None) as pool:

        async def client(end: int) -> None:
            with trio.move_on_after(rng.uniform(0, 20)):
                try:
                    async with pool.checkout() as lease:
                        await trio.sleep(rng.uniform(0, 2))
                        if end == 0:
                            raise ValueError("closed early")
                        if end == 1:
                            lease.release()
                            await trio.sleep(1)
                except ValueError:
                    pass

        async with trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(client, number % 3)
        assert pool.stats.cancelled > 0
        assert pool.stats.leases == 0
        assert pool.stats.idle == 1
        async with AsyncExitStack() as stack:
            for _ in range(10):
                await stack.enter_async_context(pool.checkout(timeout=0))
            with pytest.raises(CheckoutTimeout):
                await stack.enter_async_context(pool.checkout(timeout=0))
    assert worker.count("init") == 1


async def test_a_capacity_that_shrinks_and_grows_leaves_no_permit_behind() -> None:
    """The same when the server changes its mind about the number of streams (httpcore #943)."""
    worker = FakeWorker(capacity=3)
    async with open_pool(worker, max_size=1) as pool:
        for capacity in (3, 1, 0, 2, 3):
            worker.capacity_now = 3
            pool.refresh_capacity()
            async with AsyncExitStack() as stack:
                for _ in range(3):
                    await stack.enter_async_context(pool.checkout(timeout=1))
                worker.capacity_now = capacity
            worker.capacity_now = 3
            pool.refresh_capacity()
            assert pool.stats.leases == 0
            assert pool.stats.idle == 1
    assert worker.count("init") == 1


# Bursts on shared resources


@pytest.mark.parametrize(("clients", "connections"), [(100, 1), (101, 2), (250, 3)])
async def test_a_burst_shares_the_resource_that_is_opening(clients: int, connections: int) -> None:
    """A burst opened one HTTP/2 connection per request where one would do (httpx #514)."""
    worker = FakeWorker(capacity=100)
    worker.always("init", Slow(1))
    async with open_pool(worker, max_size=50) as pool:

        async def burst() -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(clients):
                    nursery.start_soon(partial(pool.run, FakeResource.use, 2))

        await burst()
        assert worker.count("init") == connections
        pool.refresh()
        await burst()  # now the pool knows what a resource carries, and opens what it needs at once
        assert worker.count("init") == 2 * connections
        assert pool.stats.size == connections


# Use after return (see also test_a_lease_refuses_after_its_end in test_lending.py)


async def test_a_task_that_outlives_the_lease_cannot_reach_the_next_clients_resource() -> None:
    """A connection was returned while a task still used it (asyncpg #784)."""
    async with open_pool(FakeWorker(), max_size=1) as pool, trio.open_nursery() as nursery:
        refused: list[str] = []

        async def straggler(lease: Lease[FakeResource]) -> None:
            await lease.resource.use()
            await trio.sleep(1)
            for use in (lambda: lease.resource, lease.remove, lambda: lease.replace(FakeResource(99))):
                with pytest.raises(LeaseExpired) as caught:
                    use()
                refused.append(str(caught.value))
            lease.release()

        async with pool.checkout() as lease:
            nursery.start_soon(straggler, lease)
            await wait_all_tasks_blocked()
        async with pool.checkout() as lease:
            assert await lease.resource.use(2) == 1
            assert pool.stats.leases == 1, "the straggler has released only what was its own"
        assert len(refused) == 3
        assert pool.stats.idle == 1


async def test_every_kind_of_lease_refuses_after_its_end() -> None:
    """However it was lent, and however it ended (asyncpg #784)."""
    ended: list[Lease[FakeResource]] = []
    async with open_pool(FakeWorker(), max_size=1, max_hold=3) as pool:
        await pool.wait_ready(1)
        with pool.checkout_nowait() as lease:
            ended.append(lease)
        ended.append(await pool.acquire())
        ended[-1].release()
        with pytest.raises(TimeoutError):
            async with pool.checkout() as lease:
                ended.append(lease)
                await trio.sleep(math.inf)
        ended.append(await pool.acquire())
        await trio.sleep(4)
        for lease in ended:
            assert not lease.is_held
            with pytest.raises(LeaseExpired):
                lease.resource.kill()
