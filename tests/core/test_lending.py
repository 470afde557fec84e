"""Checking out and in, one task or many."""

from __future__ import annotations

from typing import Literal, cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from nimblepool import CheckoutTimeout, LeaseExpired, NoneIdle, PoolClosed, PoolWorker, Reason, Verdict, open_pool
from nimblepool.testing import FakeResource, FakeWorker, check_balance


class Minimal(PoolWorker[int]):
    """A worker that overrides only what must be."""

    async def init(self) -> int:
        return 42


async def test_a_worker_needs_only_init() -> None:
    async with open_pool(Minimal()) as pool, pool.checkout() as lease:
        assert lease.resource == 42


async def test_a_worker_must_say_how_to_open() -> None:
    class Lazy(PoolWorker[int]):
        pass

    with pytest.raises(TypeError, match="init"):
        Lazy()  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]
    with pytest.raises(TypeError, match="worker must be PoolWorker, not <class"):
        async with open_pool(cast("PoolWorker[int]", Minimal)):
            pass


async def test_nothing_is_opened_before_it_is_needed() -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_size=5) as pool:
        await wait_all_tasks_blocked()
        assert worker.count("init") == 0
        async with pool.checkout():
            pass
        assert worker.count("init") == 1
        assert pool.stats.idle == 1


async def test_min_size_is_opened_eagerly() -> None:
    worker = FakeWorker()
    async with open_pool(worker, min_size=3) as pool:
        await pool.wait_ready()
        assert pool.stats.idle == 3


async def test_a_resource_is_used_again() -> None:
    worker = FakeWorker()
    async with open_pool(worker) as pool:
        for _ in range(10):
            async with pool.checkout() as lease:
                assert lease.resource.number == 1
        assert pool.stats.direct == 9
        assert pool.stats.waited == 1


async def test_the_last_one_used_is_lent_next_unless_fifo() -> None:
    cases: list[tuple[Literal["lifo", "fifo"], list[int]]] = [("lifo", [2, 2, 2]), ("fifo", [1, 2, 1])]
    for order, expected in cases:
        worker = FakeWorker()
        numbers = []
        async with open_pool(worker, min_size=2, order=order) as pool:
            await pool.wait_ready()
            for _ in range(3):
                async with pool.checkout() as lease:
                    numbers.append(lease.resource.number)
        assert numbers == expected


async def test_a_body_is_given_its_own_exception_back() -> None:
    worker = FakeWorker()
    async with open_pool(worker) as pool:
        with pytest.raises(ValueError, match="mine"):
            async with pool.checkout():
                raise ValueError("mine")
        await wait_all_tasks_blocked()
        assert worker.resources[0].terminated == [Reason.REMOVED]


async def test_the_pool_block_gives_its_exception_back() -> None:
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with open_pool(FakeWorker(), min_size=2) as pool:
            await pool.wait_ready()
            raise error
    assert caught.value is error


async def test_an_exception_group_of_the_body_is_not_unwrapped() -> None:
    group = ExceptionGroup("mine", [ValueError("one")])
    with pytest.raises(ExceptionGroup) as caught:
        async with open_pool(FakeWorker()):
            raise group
    assert caught.value is group


async def test_run_returns_what_the_function_returns() -> None:
    async def double(resource: FakeResource, factor: int, *, plus: int) -> int:
        await trio.lowlevel.checkpoint()
        return resource.number * factor + plus

    async with open_pool(FakeWorker()) as pool:
        assert await pool.run(double, 2, plus=3) == 5


async def test_a_lease_refuses_after_its_end() -> None:
    async with open_pool(FakeWorker()) as pool:
        async with pool.checkout() as lease:
            assert lease.is_held
        for use in (lambda: lease.resource, lambda: lease.age, lambda: lease.held_for, lease.remove):
            with pytest.raises(LeaseExpired, match="has ended"):
                use()
        lease.release()


async def test_a_checkout_is_entered_once() -> None:
    async with open_pool(FakeWorker()) as pool:
        checkout = pool.checkout()
        async with checkout:
            pass
        with pytest.raises(RuntimeError, match="only once"):
            await checkout.__aenter__()


async def test_a_lease_knows_its_times() -> None:
    async with open_pool(FakeWorker()) as pool:
        async with pool.checkout() as lease:
            await trio.sleep(2)
            assert lease.held_for == pytest.approx(2)
        await trio.sleep(3)
        async with pool.checkout() as lease:
            assert lease.age == pytest.approx(5)
            assert lease.held_for == 0


async def test_releasing_early_lets_the_next_one_in() -> None:
    async with open_pool(FakeWorker(), max_size=1) as pool, pool.checkout() as first:
        first.release()
        async with pool.checkout(timeout=0) as second:
            assert second.resource.number == 1


async def test_a_removed_resource_is_closed_and_replaced() -> None:
    worker = FakeWorker()
    async with open_pool(worker) as pool:
        async with pool.checkout() as lease:
            lease.remove("it smells")
            assert lease.resource.is_open
        await wait_all_tasks_blocked()
        assert worker.resources[0].terminated == [Reason.REMOVED]
        async with pool.checkout() as lease:
            assert lease.resource.number == 2
        assert pool.stats.lost == 1


async def test_a_replaced_resource_is_lent_on() -> None:
    worker = FakeWorker()
    new = FakeResource(99)
    async with open_pool(worker) as pool:
        async with pool.checkout() as lease:
            lease.replace(new)
        async with pool.checkout() as lease:
            assert lease.resource is new
    assert new.terminated == [Reason.CLOSED]
    assert worker.resources[0].terminated == []


async def test_waiters_are_served_in_the_order_in_which_they_came() -> None:
    served = []
    async with open_pool(FakeWorker(), max_size=1) as pool, trio.open_nursery() as nursery:

        async def client(number: int) -> None:
            async with pool.checkout(timeout=None):
                served.append(number)
                await trio.sleep(1)

        for number in range(20):
            nursery.start_soon(client, number)
            await wait_all_tasks_blocked()
    assert served == list(range(20))


async def test_a_freed_resource_is_handed_over_and_cannot_be_snatched() -> None:
    served = []
    async with open_pool(FakeWorker(), max_size=1) as pool, trio.open_nursery() as nursery:

        async def waiter() -> None:
            async with pool.checkout():
                served.append("waiter")

        async with pool.checkout():
            nursery.start_soon(waiter)
            await wait_all_tasks_blocked()
        with pytest.raises(NoneIdle):
            pool.checkout_nowait()
        async with pool.checkout():
            served.append("newcomer")
    assert served == ["waiter", "newcomer"]


async def test_checkout_nowait_lends_what_is_idle_and_nothing_else() -> None:
    async with open_pool(FakeWorker(), max_size=1) as pool:
        with pytest.raises(NoneIdle, match="nothing is idle"):
            pool.checkout_nowait()
        await pool.wait_ready(1)
        with pool.checkout_nowait() as lease:
            assert lease.resource.number == 1
            with pytest.raises(NoneIdle, match="held by"):
                pool.checkout_nowait()
        prompt = pool.checkout_nowait()
        async with pool.checkout():
            with pytest.raises(NoneIdle), prompt:
                pass
        assert pool.stats.refused == 3


async def test_a_timeout_says_who_holds_the_leases() -> None:
    async with open_pool(FakeWorker(), name="db", max_size=1) as pool, pool.checkout():
        await trio.sleep(2)
        started = trio.current_time()
        with pytest.raises(CheckoutTimeout) as caught:
            async with pool.checkout(timeout=3):
                pass
        assert trio.current_time() - started == pytest.approx(3)
        text = str(caught.value)
        assert "pool 'db': no resource within 3 s" in text
        assert "size 1 of 1" in text
        assert "held by <test 'test_a_timeout_says_who_holds_the_leases'> (for 5 s)" in text
        assert isinstance(caught.value, TimeoutError)


async def test_the_default_timeout_is_the_pools() -> None:
    async with open_pool(FakeWorker(), max_size=1, checkout_timeout=7) as pool, pool.checkout():
        started = trio.current_time()
        with pytest.raises(CheckoutTimeout):
            await pool.run(FakeResource.use)
        assert trio.current_time() - started == pytest.approx(7)


async def test_each_waiter_has_its_own_deadline() -> None:
    ended: dict[float, float] = {}
    async with open_pool(FakeWorker(), max_size=1, checkout_timeout=5) as pool, pool.checkout():

        async def client(timeout: float) -> None:
            with pytest.raises(CheckoutTimeout):
                async with pool.checkout(timeout=timeout):
                    pass
            ended[timeout] = trio.current_time()

        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for timeout in (5, 9, 1, 3, 2):
                nursery.start_soon(client, timeout)
        assert {key: when - started for key, when in ended.items()} == pytest.approx({t: t for t in ended})


async def test_a_bad_timeout_is_refused_at_once() -> None:
    async with open_pool(FakeWorker()) as pool:
        with pytest.raises(ValueError, match=r"timeout must be 0 or more \(seconds; math.inf for no limit\), not -1"):
            pool.checkout(timeout=-1)
        with pytest.raises(TypeError, match="timeout must be a number of seconds"):
            pool.checkout(timeout=cast("float", "1"))


async def test_a_worker_hears_the_request_and_may_send_a_resource_away() -> None:
    worker = FakeWorker()
    async with open_pool(worker) as pool:
        await pool.wait_ready(2)
        worker.script("checkout", Verdict.REMOVE)
        async with pool.checkout({"want": "fresh"}) as lease:
            assert lease.resource.number == 1
        await wait_all_tasks_blocked()
        assert worker.resources[1].terminated == [Reason.REMOVED]


async def test_a_closed_pool_lends_nothing() -> None:
    async with open_pool(FakeWorker()) as pool:
        await pool.close()
        with pytest.raises(PoolClosed):
            await pool.run(FakeResource.use)
        with pytest.raises(PoolClosed):
            pool.checkout_nowait()
        await pool.close()
    check_balance(pool)
    assert pool.stats.size == 0
