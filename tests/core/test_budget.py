"""Keyed pools under ``max_total``: nobody starves, no room is overlooked, and none is made twice."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from nimblepool import CheckoutTimeout, KeyedPool, PoolOptions, Reason, Verdict, open_keyed_pool
from nimblepool.testing import FakeResource, FakeWorker, Hang, Slow

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

Keyed = KeyedPool[str, FakeResource]


@asynccontextmanager
async def rush(keyed: Keyed, clients: int) -> AsyncGenerator[None]:
    """Let so many clients use key "b" all the time, for a tenth of a second each."""

    async def client() -> None:
        while True:
            async with keyed.checkout("b", timeout=None):
                await trio.sleep(0.1)

    async with trio.open_nursery() as nursery:
        for _ in range(clients):
            nursery.start_soon(client)
        await trio.sleep(1)
        yield
        nursery.cancel_scope.cancel()


async def assert_served(keyed: Keyed, *, within: float) -> None:
    async with keyed.checkout("a", timeout=within):
        assert keyed.stats["a"].leases == 1


class Resetting(FakeWorker):
    """Its resources are reset after every use."""

    def checkin(self, resource: FakeResource, error: BaseException | None) -> Verdict:
        return Verdict.RESET


def worker_of(key: str) -> FakeWorker:
    return FakeWorker()


def resetting_worker_of(key: str) -> FakeWorker:
    return Resetting()


# Nobody starves


async def test_a_key_whose_resources_are_reset_after_every_use_makes_room_too() -> None:
    async with open_keyed_pool(resetting_worker_of, max_total=1) as keyed, rush(keyed, 2):
        await assert_served(keyed, within=1)


async def test_a_removed_resource_under_a_long_lease_does_not_keep_the_others_from_making_room() -> None:
    async with open_keyed_pool(worker_of, max_total=2) as keyed:
        long = await keyed.acquire("b")
        async with rush(keyed, 2):
            long.remove()
            await assert_served(keyed, within=1)
            assert long.is_held
        long.release()


async def test_a_key_that_only_wants_its_min_size_is_not_in_the_way_of_one_with_clients() -> None:
    async with open_keyed_pool(worker_of, max_total=2, min_size=1) as keyed, rush(keyed, 3):
        keyed.pool_of("x")
        await assert_served(keyed, within=1)


async def test_what_max_total_can_never_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="max_total must be 3 or more, not 2"):
        async with open_keyed_pool(worker_of, max_total=2, min_size=3):
            pass
    async with open_keyed_pool(worker_of, max_total=2) as keyed:
        await keyed.pool_of("a").wait_ready(2)
        with trio.fail_after(60), pytest.raises(ValueError, match=r"n must be at most max_total \(2\), not 3"):
            await keyed.pool_of("a").wait_ready(3)


# No room is overlooked


async def test_a_resource_that_is_being_pinged_when_another_key_needs_room_makes_room_after_that() -> None:
    def make_worker(key: str) -> FakeWorker:
        worker = FakeWorker()
        worker.always("ping", Slow(1))
        return worker

    async with open_keyed_pool(make_worker, max_total=1, ping_every=10) as keyed:
        await keyed.run("b", FakeResource.use)
        await trio.sleep(10.5)
        assert keyed.stats["b"].checking == 1
        await assert_served(keyed, within=1)


async def test_a_resource_that_a_key_need_not_keep_any_more_makes_room() -> None:
    async with open_keyed_pool(worker_of, max_total=1) as keyed, trio.open_nursery() as nursery:
        await keyed.run("b", FakeResource.use)
        keyed.pool_of("b").resize(min_size=1)

        async def shrink() -> None:
            await trio.sleep(1)
            assert keyed.stats["a"].waiting == 1
            keyed.pool_of("b").resize(min_size=0)

        nursery.start_soon(shrink)
        await assert_served(keyed, within=2)


# None is made twice


async def test_where_closing_counts_one_client_costs_the_other_keys_one_resource() -> None:
    """Every event before the end of ``terminate`` found no room yet, and evicted one more."""
    workers: dict[str, FakeWorker] = {}

    def make_worker(key: str) -> FakeWorker:
        workers[key] = FakeWorker()
        workers[key].always("terminate", Slow(4))
        return workers[key]

    async with open_keyed_pool(make_worker, max_total=6, strict_size=True) as keyed:
        async with AsyncExitStack() as stack:
            for key in "bcdefg":
                await stack.enter_async_context(keyed.checkout(key))
        started = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def other_events() -> None:
                for _ in range(3):
                    await trio.sleep(0.5)
                    await keyed.run("b", FakeResource.use)

            nursery.start_soon(other_events)
            async with keyed.checkout("a"):
                assert trio.current_time() - started == pytest.approx(4)
                closed = [resource.terminated for worker in workers.values() for resource in worker.resources]
                assert [reasons for reasons in closed if reasons] == [[Reason.EVICTED]]


# An address that does not answer


def worker_that_may_hang(key: str) -> FakeWorker:
    worker = FakeWorker()
    if key == "hanging":
        worker.always("init", Hang())
    return worker


@asynccontextmanager
async def open_beside_a_hanging_key() -> AsyncGenerator[Keyed]:
    """Yield a keyed pool with room for 4, all of it taken by attempts to open something that hangs."""

    async def give_up() -> None:
        with pytest.raises(CheckoutTimeout):
            await keyed.run("hanging", FakeResource.use)

    options = PoolOptions(checkout_timeout=30.0, init_timeout=60.0)
    async with (
        open_keyed_pool(worker_that_may_hang, max_total=4, **options) as keyed,
        trio.open_nursery() as nursery,
    ):
        for _ in range(8):
            nursery.start_soon(give_up)
        await trio.sleep(1)
        assert keyed.stats["hanging"].opening == 4
        yield keyed


async def test_a_key_that_hangs_while_opening_keeps_nobody_from_another_key() -> None:
    async with open_beside_a_hanging_key() as keyed:
        for key in ("a", "b", "c"):
            async with keyed.checkout(key, timeout=0.1):
                assert keyed.size == 4
        assert keyed.stats["hanging"].waiting == 8
        await trio.sleep(1)
        assert keyed.stats["hanging"].opening == 4, "what room there is, it uses"


async def test_a_key_that_hangs_while_opening_keeps_one_attempt() -> None:
    async with open_beside_a_hanging_key() as keyed, AsyncExitStack() as stack:
        for key in ("a", "b", "c"):
            await stack.enter_async_context(keyed.checkout(key, timeout=0.1))
        with pytest.raises(CheckoutTimeout):
            await stack.enter_async_context(keyed.checkout("d", timeout=0.1))
        assert keyed.stats["hanging"].opening == 1


async def test_attempts_are_given_up_only_where_there_are_two_more_of_them() -> None:
    options = PoolOptions(checkout_timeout=30.0, init_timeout=60.0)

    async def give_up(key: str) -> None:
        with pytest.raises(CheckoutTimeout):
            await keyed.run(key, FakeResource.use)

    workers = {key: FakeWorker() for key in "abc"}
    for worker in workers.values():
        worker.always("init", Hang())
    async with (
        open_keyed_pool(workers.__getitem__, max_total=6, **options) as keyed,
        trio.open_nursery() as nursery,
    ):
        for key in "aaaaaabbbbbbcccccc":
            nursery.start_soon(give_up, key)
        await trio.sleep(20)
        assert [keyed.stats[key].opening for key in "abc"] == [2, 2, 2]
        assert sum(worker.count("init") for worker in workers.values()) <= 6 + 4, "attempts go round in circles"
