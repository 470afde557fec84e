"""Bugs that real pools had: closing while resources are out."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from nimblepool import Lease, LeaseExpired, LeaseRevoked, Pool, PoolClosed, Reason, open_keyed_pool, open_pool
from nimblepool.testing import FakeResource, FakeWorker, Hang, check_balance

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Holder = Callable[[Pool[FakeResource]], Awaitable[object]]


async def hold_by_checkout(pool: Pool[FakeResource]) -> None:
    async with pool.checkout():
        await trio.sleep_forever()


async def hold_by_checkout_nowait(pool: Pool[FakeResource]) -> None:
    with pool.checkout_nowait():
        await trio.sleep_forever()


async def hold_by_run(pool: Pool[FakeResource]) -> None:
    await pool.run(FakeResource.use, math.inf)


async def hold_by_acquire(pool: Pool[FakeResource]) -> None:
    lease = await pool.acquire()
    await trio.sleep(math.inf)
    lease.release()


HOLDERS = [hold_by_checkout, hold_by_checkout_nowait, hold_by_run, hold_by_acquire]

# Leaked leases (see also test_after_the_grace_the_body_is_cancelled in test_closing.py)


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("close_grace", [3, None], ids=["with a grace", "by default"])
async def test_a_lease_that_nobody_returns_holds_up_the_close_for_the_grace_and_is_told_on(
    holder: Holder, close_grace: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    """A graceful close waited for ever on a leaked lease (asyncpg #290)."""
    worker = FakeWorker()
    async with trio.open_nursery() as nursery:
        async with open_pool(worker, close_grace=close_grace) as pool:
            await pool.wait_ready(1)

            async def leaking_task() -> None:
                try:
                    await holder(pool)
                except LeaseRevoked:
                    revoked.set()
                    await trio.sleep_forever()

            revoked = trio.Event()
            nursery.start_soon(leaking_task)
            await wait_all_tasks_blocked()
            started = trio.current_time()
        assert trio.current_time() - started == pytest.approx(close_grace or 5)
        assert worker.resources[0].terminated == [Reason.CLOSED]
        # A lease without a block, or by default, ends without its holder's body being cancelled.
        await wait_all_tasks_blocked()
        assert revoked.is_set() == (close_grace is not None and holder is not hold_by_acquire)
        nursery.cancel_scope.cancel()
    assert "leaking_task held a lease" in caplog.text


async def test_keyed_pools_wait_out_one_grace_for_all_keys() -> None:
    """The same with keys: leaks add up to one grace, not to one each (asyncpg #290)."""
    workers: dict[str, FakeWorker] = {}

    def make_worker(key: str) -> FakeWorker:
        return workers.setdefault(key, FakeWorker())

    async with trio.open_nursery() as nursery:
        async with open_keyed_pool(make_worker, close_grace=3, terminate_timeout=1) as keyed:

            async def leaking_task(key: str) -> None:
                with pytest.raises(LeaseRevoked):
                    async with keyed.checkout(key):
                        await trio.sleep_forever()

            for key in ("a", "b", "c"):
                nursery.start_soon(leaking_task, key)
            await wait_all_tasks_blocked()
            started = trio.current_time()
        assert trio.current_time() - started == pytest.approx(3)
    assert [worker.resources[0].terminated for worker in workers.values()] == [[Reason.CLOSED]] * 3


# Resources that are out at the stop


@pytest.mark.parametrize("capacity", [None, 2])
@pytest.mark.parametrize("terminate", [None, Hang()], ids=["", "hanging"])
async def test_what_is_checked_out_when_the_pool_stops_is_terminated_too(
    capacity: int | None, terminate: object
) -> None:
    """Resources that were out at the stop were never terminated (NimblePool)."""
    worker = FakeWorker(capacity=capacity)
    worker.always("terminate", terminate)
    async with trio.open_nursery() as nursery:
        async with open_pool(worker, max_size=5) as pool:
            await pool.wait_ready(5)
            for holder in HOLDERS:
                nursery.start_soon(holder, pool)
            await wait_all_tasks_blocked()
            assert pool.stats.leases == 4
        assert [resource.terminated for resource in worker.resources] == [[Reason.CLOSED]] * 5
        assert worker.calls[-1][0] == "stop", "after the last terminate"
        nursery.cancel_scope.cancel()


async def test_what_is_checked_out_when_the_pool_is_cancelled_is_terminated_too() -> None:
    """The same when there is no time for a grace (NimblePool)."""
    worker = FakeWorker()
    async with trio.open_nursery() as outside:

        async def pool_task(task_status: trio.TaskStatus[Pool[FakeResource]]) -> None:
            async with open_pool(worker, max_size=4) as pool:
                await pool.wait_ready(4)
                task_status.started(pool)
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            pool: Pool[FakeResource] = await nursery.start(pool_task)
            for holder in HOLDERS:
                outside.start_soon(holder, pool)
            await wait_all_tasks_blocked()
            started = trio.current_time()
            nursery.cancel_scope.cancel()
        assert trio.current_time() == started
        assert [resource.terminated for resource in worker.resources] == [[Reason.CLOSED]] * 4
        outside.cancel_scope.cancel()


# Holders that finish late


@pytest.mark.parametrize("capacity", [None, 2])
async def test_holders_that_finish_after_the_pool_has_closed_leave_the_books_alone(capacity: int | None) -> None:
    """Their check-in broke the bookkeeping (NimblePool)."""
    worker = FakeWorker(capacity=capacity)
    late: list[str] = []

    async def by_checkout(pool: Pool[FakeResource]) -> None:
        async with pool.checkout() as lease:
            await trio.sleep(100)
            with pytest.raises(LeaseRevoked):
                lease.resource.kill()
        late.append("checkout")

    async def by_a_crash(pool: Pool[FakeResource]) -> None:
        with pytest.raises(ValueError, match="crash") as caught:
            async with pool.checkout():
                await trio.sleep(100)
                raise ValueError("crash")
        assert "the pool had ended the lease" in caught.value.__notes__[0]
        late.append("crash")

    async def by_acquire(pool: Pool[FakeResource], owner: trio.lowlevel.Task | None) -> None:
        lease = await pool.acquire(owner=owner)
        await trio.sleep(100)
        lease.release()
        late.append("acquire")

    async def by_cancellation(pool: Pool[FakeResource]) -> None:
        with trio.move_on_after(100) as scope:
            await pool.run(FakeResource.use, math.inf)
        assert scope.cancelled_caught
        late.append("cancellation")

    async with trio.open_nursery() as nursery:
        async with open_pool(worker, max_size=6) as pool:
            for holder in (by_checkout, by_a_crash, by_cancellation):
                nursery.start_soon(holder, pool)
            nursery.start_soon(by_acquire, pool, None)
            nursery.start_soon(by_acquire, pool, trio.lowlevel.current_task())
            await wait_all_tasks_blocked()
            assert pool.stats.leases == 5
        closed = pool.stats
        assert late == []
        check_balance(pool)
    assert sorted(late) == ["acquire", "acquire", "cancellation", "checkout", "crash"]
    assert pool.stats == closed
    assert all(resource.terminated == [Reason.CLOSED] for resource in worker.resources)
    assert worker.count("checkin") == 5, "the worker heard of each end once"
    check_balance(pool)


async def test_a_body_that_shields_itself_until_after_the_close_gets_the_revocation() -> None:
    """The same for a lease whose body the pool wanted to cancel and could not (NimblePool)."""
    worker = FakeWorker()
    async with trio.open_nursery() as nursery:

        async def stubborn(pool: Pool[FakeResource]) -> None:
            with pytest.raises(LeaseRevoked, match="closed while"):
                async with pool.checkout():
                    with trio.CancelScope(shield=True):
                        await trio.sleep(100)
                    await trio.lowlevel.checkpoint()

        async with open_pool(worker, close_grace=1, terminate_timeout=1) as pool:
            nursery.start_soon(stubborn, pool)
            await wait_all_tasks_blocked()
        closed = pool.stats
    assert pool.stats == closed
    check_balance(pool)


async def test_nothing_is_lent_by_a_pool_that_has_closed() -> None:
    """Who comes when all is over is refused, by every way there is (NimblePool)."""
    leases: list[Lease[FakeResource]] = []
    async with open_pool(FakeWorker()) as pool:
        await pool.wait_ready(1)
        unentered = pool.checkout_nowait()
    attempts: list[Callable[[], Awaitable[object]]] = [
        partial(pool.run, FakeResource.use),
        pool.acquire,
        pool.wait_ready,
    ]
    for attempt in attempts:
        with pytest.raises(PoolClosed):
            await attempt()
    with pytest.raises(PoolClosed), unentered as lease:
        leases.append(lease)
    for change in (pool.refresh, pool.pause, pool.resume, partial(pool.resize, min_size=3)):
        change()
    await pool.drain()
    await pool.close()
    await wait_all_tasks_blocked()
    assert pool.stats.size == 0
    assert not leases
    check_balance(pool)


async def test_a_lease_that_was_revoked_says_so_whatever_is_asked_of_it() -> None:
    """Not a bare ``LeaseExpired``: the holder must learn that it is not its own fault (asyncpg #290)."""
    async with open_pool(FakeWorker(), close_grace=0) as pool:
        lease = await pool.acquire(owner=None)
    for use in (lambda: lease.resource, lambda: lease.age, lambda: lease.held_for, lease.remove):
        with pytest.raises(LeaseExpired) as caught:
            use()
        assert isinstance(caught.value, LeaseRevoked)
    lease.release()
