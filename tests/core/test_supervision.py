"""Leases that are held too long, lost, or whose resource dies."""

from __future__ import annotations

import gc
import logging
import math
import warnings
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from nimblepool import (
    CheckoutTimeout,
    Lease,
    LeaseExpired,
    LeaseRevoked,
    LeaseTimeout,
    Pool,
    PoolError,
    PoolObserver,
    Reason,
    ResourceLost,
    open_pool,
)
from nimblepool._pool import engine_of
from nimblepool.testing import Fail, FakeResource, FakeWorker, Slow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nimblepool import PoolOptions

# max_hold


async def test_a_body_that_takes_too_long_is_cancelled_and_its_resource_removed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker = FakeWorker()
    async with open_pool(worker, name="db", max_size=1, max_hold=3) as pool:
        began = trio.current_time()
        with pytest.raises(LeaseTimeout, match=r"pool 'db': .* held a lease for more than max_hold \(3 s\)") as caught:
            await pool.run(FakeResource.use, 100)
        assert trio.current_time() - began == pytest.approx(3)
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, LeaseExpired)
        await wait_all_tasks_blocked()
        assert worker.resources[0].terminated == [Reason.HELD]
        assert await pool.run(FakeResource.use) == 2
        assert pool.stats.lost == 1
    # the stack of the holder, down to where it stands
    assert "in test_a_body_that_takes_too_long" in caplog.text
    assert "in use" in caplog.text
    assert "await trio.sleep(seconds)" in caplog.text


async def test_the_time_runs_from_the_beginning_of_the_lease() -> None:
    """Neither the wait before nor the leases before count."""
    worker = FakeWorker()
    worker.always("init", Slow(3))
    async with open_pool(worker, max_size=1, max_hold=2) as pool:
        for _ in range(3):
            assert await pool.run(FakeResource.use, 1.9) == 1
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(partial(pool.run, FakeResource.use, 1.9))
    assert pool.stats.lost == 0


async def test_each_lease_has_its_own_time() -> None:
    ended: list[float] = []
    async with open_pool(FakeWorker(), max_hold=2) as pool, trio.open_nursery() as nursery:
        began = trio.current_time()

        async def client() -> None:
            with pytest.raises(LeaseTimeout):
                await pool.run(FakeResource.use, 100)
            ended.append(trio.current_time() - began)

        for _ in range(4):
            nursery.start_soon(client)
            await trio.sleep(0.5)
    assert ended == [pytest.approx(2), pytest.approx(2.5), pytest.approx(3), pytest.approx(3.5)]


async def test_a_body_that_ends_in_its_own_way_after_all_is_not_contradicted() -> None:
    async with open_pool(FakeWorker(), max_hold=1) as pool:
        with pytest.raises(KeyError, match="mine"):
            async with pool.checkout():
                try:
                    await trio.sleep(2)
                finally:
                    raise KeyError("mine")


async def test_a_lease_released_in_time_is_not_overdue_later() -> None:
    async with open_pool(FakeWorker(), max_hold=1) as pool:
        async with pool.checkout() as lease:
            lease.release()
            await trio.sleep(10)
        with pool.checkout_nowait():
            pass
        await trio.sleep(10)
        assert pool.stats.lost == 0


async def test_max_hold_holds_for_checkout_nowait() -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_hold=1) as pool:
        await pool.wait_ready(1)
        with pytest.raises(LeaseTimeout), pool.checkout_nowait():
            await trio.sleep(10)


async def test_an_outer_cancellation_is_not_taken_for_max_hold() -> None:
    async with open_pool(FakeWorker(), max_hold=5) as pool:
        with trio.move_on_after(1) as scope:
            await pool.run(FakeResource.use, 100)
        assert scope.cancelled_caught


async def test_an_acquired_lease_is_taken_back_after_max_hold(caplog: pytest.LogCaptureFixture) -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_size=1, max_hold=3) as pool:
        lease = await pool.acquire()
        async with pool.checkout() as other:  # served as soon as that one is taken back
            assert not lease.is_held
            assert other.resource.number == 2
        with pytest.raises(LeaseTimeout, match="held a lease for more than max_hold"):
            lease.resource.kill()
        lease.release()
    assert worker.resources[0].terminated == [Reason.HELD]
    assert "acquired at" in caplog.text
    assert "test_supervision.py:" in caplog.text


# Acquired leases


@contextmanager
def recorded_warnings() -> Iterator[list[warnings.WarningMessage]]:
    """Gather the ResourceWarnings of the block, which would be errors."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        yield caught


def acquired_here(record: warnings.WarningMessage) -> bool:
    return "a lease was never released; it was acquired at " in str(record.message) and "test_supervision.py:" in str(
        record.message
    )


async def test_an_acquired_lease_is_a_lease() -> None:
    async with open_pool(FakeWorker()) as pool:
        lease = await pool.acquire("request", timeout=1)
        assert isinstance(lease, Lease)
        await trio.sleep(2)
        assert (lease.held_for, lease.request, pool.stats.leases) == (2, "request", 1)
        lease.release()
        lease.release()
        with pytest.raises(LeaseExpired):
            lease.resource.kill()
        assert pool.stats.idle == 1


async def test_the_end_of_the_owner_ends_the_lease() -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_size=1) as pool:
        leases = []

        async def owner() -> None:
            leases.append(await pool.acquire())

        with recorded_warnings() as caught:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(owner)
            assert await pool.run(FakeResource.use) == 2
        assert [acquired_here(record) for record in caught] == [True]
        assert "(owner)" in str(caught[0].message), "the function in which it was acquired"
        with pytest.raises(LeaseExpired, match="never released"):
            leases[0].resource.kill()
        leases[0].release()
    assert worker.resources[0].terminated == [Reason.ABANDONED]


@pytest.mark.parametrize("in_a_cycle", [False, True])
async def test_the_collector_ends_a_lease_that_is_lost(*, in_a_cycle: bool) -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_size=1) as pool:
        lease = await pool.acquire(owner=None)
        with recorded_warnings() as caught:
            if in_a_cycle:
                cycle: list[object] = [lease]
                cycle.append(cycle)
                del cycle
            del lease
            gc.collect()
            assert worker.resources[0].is_open, "the collector only reports"
            assert await pool.run(FakeResource.use) == 2
        assert [acquired_here(record) for record in caught] == [True]
    assert worker.resources[0].terminated == [Reason.ABANDONED]
    assert pool.stats.lost == 1


async def test_a_lease_is_lost_only_once() -> None:
    """Its owner ends, and nobody else has it."""
    worker = FakeWorker()
    async with open_pool(worker) as pool:

        async def owner() -> None:
            lease = await pool.acquire()
            assert lease.is_held

        with recorded_warnings() as caught:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(owner)
            gc.collect()
            await wait_all_tasks_blocked()
        assert len(caught) == 1
    assert worker.resources[0].terminated == [Reason.ABANDONED]


async def test_a_lease_without_an_owner_moves_between_tasks() -> None:
    async with open_pool(FakeWorker()) as pool:
        leases: list[Lease[FakeResource]] = []

        async def opener() -> None:
            leases.append(await pool.acquire(owner=None))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(opener)
        await trio.sleep(100)
        gc.collect()
        assert await leases[0].resource.use() == 1
        leases[0].release()
        assert pool.stats.idle == 1


async def test_the_owner_may_be_another_task() -> None:
    async with open_pool(FakeWorker()) as pool:
        parent = trio.lowlevel.current_task()
        leases: list[Lease[FakeResource]] = []

        async def opener() -> None:
            leases.append(await pool.acquire(owner=parent))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(opener)
        await trio.sleep(10)
        assert leases[0].is_held
        leases[0].release()


async def test_a_released_lease_is_not_missed() -> None:
    async with open_pool(FakeWorker()) as pool:

        async def owner() -> None:
            (await pool.acquire()).release()

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(owner)
            gc.collect()
            await wait_all_tasks_blocked()
        assert pool.stats.lost == 0


async def test_a_lost_lease_is_noticed_even_if_the_keeper_gets_another_alarm_at_that_moment() -> None:
    """Who waits is served at once, and not when its own timeout wakes the keeper."""
    for _ in range(10):  # which of the two comes first is drawn by trio
        async with open_pool(FakeWorker(), max_size=1) as pool:
            lease = await pool.acquire(owner=None)
            began = trio.current_time()
            with recorded_warnings() as caught:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(partial(pool.run, FakeResource.use))
                    del lease
                    gc.collect()
            assert trio.current_time() == began
            assert len(caught) == 1


async def test_the_warning_is_logged_where_warnings_are_errors(caplog: pytest.LogCaptureFixture) -> None:
    async with open_pool(FakeWorker(), max_size=1) as pool:
        lease = await pool.acquire(owner=None)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del lease
            gc.collect()
            assert await pool.run(FakeResource.use) == 2
    assert "a lease was never released" in caplog.text


async def test_a_lease_lost_after_the_pool_has_closed_disturbs_nobody() -> None:
    async with open_pool(FakeWorker()) as pool:
        lease = await pool.acquire(owner=None)
        closing = trio.current_time()
    assert trio.current_time() - closing == pytest.approx(5), "the grace"
    with pytest.raises(LeaseRevoked):
        lease.resource.kill()
    del lease
    gc.collect()


async def test_one_instrument_watches_over_owners_from_the_first_acquire_until_the_pool_closes() -> None:
    def instruments() -> int:
        runner = cast("Any", trio._core._run.GLOBAL_RUN_CONTEXT).runner
        return len(runner.instruments.get("task_exited", ()))

    before = instruments()
    async with open_pool(FakeWorker()) as pool:
        async with pool.checkout():
            assert instruments() == before, "nobody has acquired anything"
        for _ in range(3):
            first = await pool.acquire()
            second = await pool.acquire()
            assert instruments() == before + 1
            first.release()
            second.release()
    assert instruments() == before


async def test_cancelling_an_acquire_loses_nothing() -> None:
    async with open_pool(FakeWorker(), max_size=1) as pool, pool.checkout() as lease:
        with trio.move_on_after(1):
            await pool.acquire()
        with pytest.raises(CheckoutTimeout):
            await pool.acquire(timeout=1)
        lease.release()
        assert pool.stats.idle == 1


# Death


async def test_a_resource_that_dies_while_idle_is_replaced() -> None:
    worker = FakeWorker(watched=True)
    async with open_pool(worker, min_size=2) as pool:
        await pool.wait_ready()
        await pool.run(FakeResource.use)
        await pool.run(FakeResource.use)
        await trio.sleep(1000)
        worker.resources[0].kill()
        await trio.sleep(5)
        assert worker.resources[0].terminated == [Reason.DIED]
        assert pool.stats.idle == 2


@pytest.mark.parametrize("how", ["returns", "raises"])
async def test_by_default_a_lease_goes_on_and_its_checkin_removes_the_dead_resource(how: str) -> None:
    worker = FakeWorker(watched=True)
    if how == "raises":
        worker.script("watch", Slow(1, Fail(ConnectionError("reset by peer"))))
    async with open_pool(worker) as pool:
        async with pool.checkout() as lease:
            await trio.sleep(1)
            lease.resource.kill()
            await trio.sleep(1)
            assert lease.resource.is_open
            assert lease.is_held
        await wait_all_tasks_blocked()
        assert worker.resources[0].terminated == [Reason.DIED]
        assert await pool.run(FakeResource.use) == 2


async def test_with_cancel_the_body_is_cancelled() -> None:
    worker = FakeWorker(watched=True)
    error = ConnectionError("reset by peer")
    worker.script("watch", Slow(2, Fail(error)))
    async with open_pool(worker, on_death="cancel") as pool:
        began = trio.current_time()
        with pytest.raises(ResourceLost, match="died while it was leased") as caught:
            await pool.run(FakeResource.use, 100)
        assert trio.current_time() - began == pytest.approx(2)
        assert caught.value.__cause__ is error
        assert isinstance(caught.value, PoolError)
        assert await pool.run(FakeResource.use) == 2
    assert worker.resources[0].terminated == [Reason.DIED]


async def test_with_cancel_only_the_bodies_on_the_dead_resource_are_cancelled() -> None:
    worker = FakeWorker(capacity=2, watched=True)
    outcomes: list[str] = []
    async with open_pool(worker, on_death="cancel") as pool, trio.open_nursery() as nursery:
        await pool.wait_ready(2)

        async def client() -> None:
            try:
                outcomes.append(str(await pool.run(FakeResource.use, 5)))
            except ResourceLost:
                outcomes.append("lost")

        for _ in range(4):
            nursery.start_soon(client)
        await trio.sleep(1)
        worker.resources[0].kill()
    assert outcomes == ["lost", "lost", "2", "2"]


async def test_death_on_its_last_use_is_noticed_too() -> None:
    worker = FakeWorker(watched=True)
    async with open_pool(worker, max_uses=1, on_death="cancel") as pool:
        with pytest.raises(ResourceLost):
            async with pool.checkout() as lease:
                lease.resource.kill()
                await trio.sleep(100)


async def test_death_of_a_resource_that_was_removed_already_is_noticed_too() -> None:
    worker = FakeWorker(watched=True)
    async with open_pool(worker, on_death="cancel") as pool:
        with pytest.raises(ResourceLost):
            async with pool.checkout() as lease:
                lease.remove()
                lease.resource.kill()
                await trio.sleep(100)
    assert worker.resources[0].terminated == [Reason.REMOVED]


async def test_an_acquired_lease_on_a_dead_resource_is_marked_and_removed_when_it_is_released() -> None:
    worker = FakeWorker(watched=True)
    async with open_pool(worker, on_death="cancel") as pool:
        lease = await pool.acquire()
        lease.resource.kill()
        await wait_all_tasks_blocked()
        assert lease.is_held
        lease.release()
        await wait_all_tasks_blocked()
        assert worker.resources[0].terminated == [Reason.DIED]


async def test_the_watch_ends_before_terminate_and_its_end_is_no_death(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nimblepool")

    class Noting(FakeWorker):
        async def watch(self, resource: FakeResource) -> None:
            try:
                await super().watch(resource)
            finally:
                self.calls.append(("watch ended", resource))

    worker = Noting(watched=True)
    async with open_pool(worker) as pool, pool.checkout() as lease:
        await wait_all_tasks_blocked()
        lease.remove()
    names = [name for name, _ in worker.calls]
    assert names.index("watch ended") < names.index("terminate")
    assert "died" not in caplog.text


# After the end


async def test_a_lease_whose_end_the_pool_brought_says_so() -> None:
    async with open_pool(FakeWorker(), max_hold=1) as pool:
        kept: list[Lease[FakeResource]] = []
        with pytest.raises(LeaseTimeout):
            async with pool.checkout() as lease:
                kept.append(lease)
                await trio.sleep(100)
        for use in (lambda: kept[0].resource, lambda: kept[0].age, kept[0].remove):
            with pytest.raises(LeaseTimeout):
                use()


async def test_removing_twice_is_removing_once() -> None:
    worker = FakeWorker()
    async with open_pool(worker) as pool:
        async with pool.checkout() as lease:
            lease.remove(Reason.DIED)
            lease.remove()
        await wait_all_tasks_blocked()
    assert worker.resources[0].terminated == [Reason.DIED]


async def test_the_words_of_a_removal_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nimblepool")
    async with open_pool(FakeWorker(), name="db") as pool, pool.checkout() as lease:
        lease.remove("it answers in Latin")
    assert "pool 'db': a resource is removed: it answers in Latin" in caplog.text


async def test_the_new_one_is_watched_after_replace_and_the_old_one_is_not() -> None:
    worker = FakeWorker(watched=True)
    new = FakeResource(99)
    async with open_pool(worker, on_death="cancel") as pool:
        async with pool.checkout() as lease:
            old = lease.resource
            lease.replace(new)
            old.kill()
            await trio.sleep(1)
            assert lease.resource is new
        assert pool.stats.idle == 1
        with pytest.raises(ResourceLost):
            async with pool.checkout() as lease:
                assert lease.resource is new
                new.kill()
                await trio.sleep(100)
    assert new.terminated == [Reason.DIED]
    assert old.is_open, "it is the caller's"


# Closing


@pytest.mark.parametrize("options", [{"close_grace": 2.0}, {"close_grace": 2.0, "max_hold": 1000.0}])
async def test_bodies_that_can_be_cancelled_are_cancelled_after_the_grace(options: PoolOptions) -> None:
    async def holder(pool: Pool[FakeResource]) -> None:
        with pytest.raises(LeaseRevoked, match="held a lease"):
            await pool.run(FakeResource.use, math.inf)

    async with trio.open_nursery() as nursery:
        async with open_pool(FakeWorker(), **options) as pool:
            nursery.start_soon(holder, pool)
            await wait_all_tasks_blocked()
            began = trio.current_time()
        assert trio.current_time() - began == pytest.approx(options.get("close_grace", 5))


async def test_a_grace_of_0_is_none() -> None:
    async with trio.open_nursery() as nursery:
        async with open_pool(FakeWorker(), close_grace=0) as pool:
            await pool.wait_ready(1)

            async def holder() -> None:
                with pytest.raises(LeaseRevoked):
                    await pool.run(FakeResource.use, math.inf)

            nursery.start_soon(holder)
            await wait_all_tasks_blocked()
            began = trio.current_time()
        assert trio.current_time() == began


async def test_an_acquired_lease_is_revoked_after_the_grace(caplog: pytest.LogCaptureFixture) -> None:
    worker = FakeWorker()
    async with open_pool(worker, close_grace=2) as pool:
        lease = await pool.acquire()
        began = trio.current_time()
    assert trio.current_time() - began == pytest.approx(2)
    assert worker.resources[0].terminated == [Reason.CLOSED]
    with pytest.raises(LeaseRevoked):
        lease.resource.kill()
    lease.release()
    assert "it is revoked" in caplog.text


async def test_what_is_held_is_known_by_its_holder() -> None:
    async with open_pool(FakeWorker(), name="db") as pool:
        async with pool.checkout() as lease:
            assert lease.holder == trio.lowlevel.current_task().name
            assert lease.task is trio.lowlevel.current_task()
            assert [held is lease for held in engine_of(pool).supervision.holders()] == [True]
            assert "pool 'db', held by" in repr(lease)
        assert "not held" in repr(lease)


async def test_a_lease_for_a_task_that_has_ended_is_taken_back_at_once() -> None:
    worker = FakeWorker()
    tasks: list[trio.lowlevel.Task] = []

    async def short_lived() -> None:
        tasks.append(trio.lowlevel.current_task())
        await trio.lowlevel.checkpoint()

    async with open_pool(worker) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(short_lived)
        lease = await pool.acquire(owner=tasks[0])
        with pytest.warns(ResourceWarning, match="never released"):
            await wait_all_tasks_blocked()
        assert not lease.is_held
        with pytest.raises(TypeError, match="owner must be Task"):
            await pool.acquire(owner=cast("trio.lowlevel.Task", "me"))


async def test_observers_do_not_change_how_a_pool_closes() -> None:
    """A body is cancelled after the grace if ``close_grace`` was given, and for no other reason."""
    ended: list[bool] = []

    async def holder(pool: Pool[FakeResource]) -> None:
        async with pool.checkout() as lease:
            await trio.sleep(20)
        ended.append(lease.is_held)

    async with trio.open_nursery() as nursery, open_pool(FakeWorker(), observers=[PoolObserver()]) as pool:
        nursery.start_soon(holder, pool)
        await wait_all_tasks_blocked()
    assert ended == [False]
