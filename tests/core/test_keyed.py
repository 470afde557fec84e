"""Keyed pools: one pool a key, one cap over all, fair between keys."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from nimblepool import CheckoutTimeout, KeyedPool, NoneIdle, PoolClosed, PoolUnavailable, Reason, open_keyed_pool
from nimblepool.testing import Fail, FakeResource, FakeWorker, Slow, check_balance, sweep


class Workers(dict[str, FakeWorker]):
    """A factory that keeps what it made."""

    def __call__(self, key: str) -> FakeWorker:
        return self.setdefault(key, FakeWorker())

    @property
    def open_now(self) -> int:
        return sum(len(worker.open_now) for worker in self.values())


async def test_each_key_has_its_own_resources_and_figures() -> None:
    workers = Workers()
    async with open_keyed_pool(workers, name="origins", max_size=2) as keyed:
        for key in ("a", "b", "a"):
            async with keyed.checkout(key) as lease:
                assert lease.resource in workers[key].resources
        assert await keyed.run("b", FakeResource.use) == 1
        assert {key: stats.started for key, stats in keyed.stats.items()} == {"a": 2, "b": 2}
        assert keyed.stats["a"].name == "origins['a']"
        assert keyed.size == 2
        with pytest.raises(KeyError):
            keyed.stats["c"]


async def test_every_way_to_lend_works_by_key() -> None:
    async with open_keyed_pool(Workers(), max_size=1) as keyed:
        with pytest.raises(NoneIdle):
            keyed.checkout_nowait("a")
        lease = await keyed.acquire("a")
        with pytest.raises(CheckoutTimeout):
            async with keyed.checkout("a", timeout=1):
                pass
        lease.release()
        with keyed.checkout_nowait("a") as lease:
            assert lease.resource.number == 1


async def test_a_key_takes_the_room_of_the_resource_idle_longest_under_another_key() -> None:
    workers = Workers()
    async with open_keyed_pool(workers, max_total=3, max_size=3) as keyed:
        for key in ("a", "b", "c"):
            await keyed.run(key, FakeResource.use)
            await trio.sleep(1)
        await keyed.run("a", FakeResource.use)
        await keyed.run("d", FakeResource.use)
        await wait_all_tasks_blocked()
        assert workers["b"].resources[0].terminated == [Reason.EVICTED]
        assert {key: stats.size for key, stats in keyed.stats.items()} == {"a": 1, "b": 0, "c": 1, "d": 1}


async def test_a_lent_resource_is_never_evicted() -> None:
    """Reserved is not idle: eviction closed a connection already promised to a request (httpcore #1110)."""
    workers = Workers()
    async with open_keyed_pool(workers, max_total=2) as keyed, trio.open_nursery() as nursery:
        async with keyed.checkout("a") as lease:
            nursery.start_soon(partial(keyed.run, "a", FakeResource.use, 1))
            await wait_all_tasks_blocked()
            with pytest.raises(CheckoutTimeout):
                async with keyed.checkout("b", timeout=0.5):
                    pass
            assert lease.resource.is_open
        await keyed.run("b", FakeResource.use)


async def test_the_cap_holds_over_all_keys_under_load() -> None:
    workers = Workers()
    most = 0
    async with open_keyed_pool(workers, max_total=5, max_size=4, checkout_timeout=None) as keyed:

        async def client(key: str, hold: float) -> None:
            nonlocal most
            for _ in range(4):
                async with keyed.checkout(key) as lease:
                    most = max(most, workers.open_now)
                    await lease.resource.use(hold)

        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(client, f"key {number % 8}", 0.1 + number % 7 / 10)
        assert most == 5
        assert keyed.size <= 5


async def test_keys_share_the_room_evenly_and_then_keep_what_they_have() -> None:
    """A key that came first with many clients does not starve the others, and nothing is opened needlessly."""
    workers = Workers()
    served: Counter[str] = Counter()
    async with open_keyed_pool(workers, max_total=6, max_size=6, checkout_timeout=None) as keyed:

        async def client(key: str) -> None:
            while True:
                async with keyed.checkout(key) as lease:
                    await lease.resource.use(1)
                    served[key] += 1

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(client, "greedy")
            await trio.sleep(10.5)
            assert keyed.stats["greedy"].size == 6
            for key in ("b", "c"):
                nursery.start_soon(client, key)
                nursery.start_soon(client, key)
                nursery.start_soon(client, key)
            await trio.sleep(5)
            assert {key: stats.size for key, stats in keyed.stats.items()} == {"greedy": 2, "b": 2, "c": 2}
            opened = sum(len(worker.resources) for worker in workers.values())
            served.clear()
            await trio.sleep(20)
            assert served["greedy"] == pytest.approx(40, abs=2)
            assert served["b"] == pytest.approx(40, abs=2)
            assert sum(len(worker.resources) for worker in workers.values()) == opened
            nursery.cancel_scope.cancel()


async def test_more_keys_than_room_take_turns() -> None:
    workers = Workers()
    waits: dict[str, list[float]] = {}
    async with open_keyed_pool(workers, max_total=2, max_size=2, checkout_timeout=None) as keyed:

        async def client(key: str) -> None:
            for _ in range(6):
                asked = trio.current_time()
                async with keyed.checkout(key) as lease:
                    waits.setdefault(key, []).append(trio.current_time() - asked)
                    await lease.resource.use(1)

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(client, str(number))
                nursery.start_soon(client, str(number))
    longest = [max(times) for times in waits.values()]
    assert max(longest) <= 3 * min(longest)


async def test_a_key_that_cannot_open_does_not_keep_room_from_others() -> None:
    workers = Workers()
    workers["dead"] = FakeWorker()
    workers["dead"].always("init", Fail(OSError("down")))
    async with open_keyed_pool(workers, max_total=1, max_size=1) as keyed:
        for _ in range(3):
            with pytest.raises(PoolUnavailable):
                await keyed.run("dead", FakeResource.use)
            await keyed.run("alive", FakeResource.use)


async def test_an_unused_key_leaves_after_key_idle() -> None:
    workers = Workers()
    async with open_keyed_pool(workers, key_idle=10) as keyed:
        await keyed.run("a", FakeResource.use)
        await trio.sleep(5)
        await keyed.run("b", FakeResource.use)
        await trio.sleep(5.5)
        assert list(keyed.stats) == ["b"]
        assert workers["a"].resources[0].terminated == [Reason.CLOSED]
        assert workers["a"].count("stop") == 1
        await trio.sleep(5)
        assert not keyed.stats
        assert await keyed.run("a", FakeResource.use) == 2


async def test_a_key_in_use_does_not_leave_and_counts_from_its_last_use() -> None:
    async with open_keyed_pool(Workers(), key_idle=10) as keyed:
        async with keyed.checkout("a"):
            await trio.sleep(25)
            assert list(keyed.stats) == ["a"]
        await trio.sleep(9)
        assert list(keyed.stats) == ["a"]
        await trio.sleep(11)
        assert not keyed.stats


async def test_a_key_that_leaves_does_not_race_a_checkout() -> None:
    workers = Workers()
    async with open_keyed_pool(workers, key_idle=1) as keyed:
        for offset in (0.9, 0.999999, 1.0, 1.000001, 1.1):
            checkout = keyed.checkout("a")
            await keyed.run("a", FakeResource.use)
            await trio.sleep(offset)
            async with checkout as lease:
                assert lease.resource.is_open
                await lease.resource.use(3)


async def test_closing_refuses_and_closes_all_keys_at_the_same_time() -> None:
    workers = Workers()
    async with open_keyed_pool(workers, max_total=9) as keyed:
        for key in ("a", "b", "c"):
            workers(key).always("terminate", Slow(2))
            await keyed.run(key, FakeResource.use)
        started = trio.current_time()
        await keyed.close()
        assert trio.current_time() - started == pytest.approx(2)
        with pytest.raises(PoolClosed):
            await keyed.run("a", FakeResource.use)
        with pytest.raises(PoolClosed):
            await keyed.run("new", FakeResource.use)
    assert not workers.open_now


async def test_a_failing_start_is_an_open_failure_of_its_key() -> None:
    workers = Workers()
    workers["a"] = FakeWorker()
    workers["a"].script("start", Fail(RuntimeError("no licence")))
    async with open_keyed_pool(workers) as keyed:
        with pytest.raises(PoolUnavailable, match="no licence"):
            await keyed.run("a", FakeResource.use)
        assert await keyed.run("a", FakeResource.use) == 1
        assert workers["a"].count("start") == 2


async def test_the_blocks_exception_comes_out_as_it_is() -> None:
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with open_keyed_pool(Workers()) as keyed:
            await keyed.run("a", FakeResource.use)
            raise error
    assert caught.value is error


async def test_cancelling_anywhere_loses_no_room() -> None:
    workers = Workers()
    async with open_keyed_pool(workers, max_total=2, max_size=2) as keyed:

        async def scenario() -> None:
            for key in ("a", "b", "c"):
                async with keyed.checkout(key) as lease:
                    await lease.resource.use(1)
                async with keyed.checkout("a"), keyed.checkout(key):
                    pass

        async def after() -> None:
            await both_rooms(keyed)

        assert await sweep(scenario, after) >= 15


async def both_rooms(keyed: KeyedPool[str, FakeResource]) -> None:
    async with keyed.checkout("x"), keyed.checkout("y"):
        assert keyed.size == 2
    for key in keyed.stats:
        check_balance(keyed.pool_of(key))


@pytest.mark.parametrize("options", [{"max_total": 0}, {"key_idle": 0}, {"key_idle": -1}, {"max_size": 0}])
async def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        async with open_keyed_pool(Workers(), **options):
            pass


async def test_key_idle_may_be_infinite() -> None:
    async with open_keyed_pool(Workers(), key_idle=math.inf) as keyed:
        await keyed.run("a", FakeResource.use)
        await trio.sleep(80_000)
        assert list(keyed.stats) == ["a"]


async def test_a_timeout_says_what_the_other_keys_have() -> None:
    async with open_keyed_pool(Workers(), max_total=2) as keyed, keyed.checkout("a"), keyed.checkout("a"):
        with pytest.raises(CheckoutTimeout, match=r"size 0 of 10 .*; 2 of max_total \(2\) in use under all keys"):
            async with keyed.checkout("b", timeout=1):
                pass
        check_balance(keyed)
        assert repr(keyed) == "<KeyedPool 'pool': 2 keys, 2 resources>"
