"""Closing: nothing outlives the block, and nothing hangs."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from nimblepool import LeaseExpired, LeaseRevoked, Pool, PoolClosed, PoolWorker, Reason, open_pool, serve_pool
from nimblepool.testing import Fail, FakeResource, FakeWorker, Hang, Slow


async def test_every_resource_is_terminated_exactly_once() -> None:
    worker = FakeWorker()
    async with open_pool(worker, min_size=3, max_size=5) as pool:
        await pool.wait_ready(5)
        async with pool.checkout() as lease:
            lease.remove()
    assert all(len(resource.terminated) == 1 for resource in worker.resources)
    assert worker.count("stop") == 1


async def test_a_resource_that_is_opening_is_not_leaked() -> None:
    """The pool closed while a resource was opening: it was leaked (puddle #17)."""

    class Unstoppable(FakeWorker):
        async def init(self) -> FakeResource:
            with trio.CancelScope(shield=True):
                await trio.sleep(2)
            resource = FakeResource(len(self.resources) + 1)
            self.resources.append(resource)
            return resource

    for worker in (FakeWorker(), Unstoppable()):
        worker.always("init", Slow(2))
        async with open_pool(worker, min_size=3):
            await wait_all_tasks_blocked()
        assert all(resource.terminated == [Reason.CLOSED] for resource in worker.resources)
    assert len(worker.resources) == 3


async def test_waiters_are_refused_when_the_pool_closes() -> None:
    async with trio.open_nursery() as nursery:
        async with open_pool(FakeWorker(), max_size=1) as pool:

            async def client() -> None:
                with pytest.raises(PoolClosed):
                    async with pool.checkout():
                        pass

            async with pool.checkout():
                for _ in range(3):
                    nursery.start_soon(client)
                await wait_all_tasks_blocked()
                assert pool.stats.waiting == 3
                nursery.start_soon(pool.close)
                await wait_all_tasks_blocked()
                assert pool.stats.waiting == 0
        assert pool.stats.refused == 3


async def test_a_lease_has_the_grace_to_end() -> None:
    worker = FakeWorker()
    async with trio.open_nursery() as nursery:
        async with open_pool(worker) as pool:
            nursery.start_soon(partial(pool.run, FakeResource.use, 3))
            await wait_all_tasks_blocked()
            started = trio.current_time()
        assert trio.current_time() - started == pytest.approx(3)
    assert worker.resources[0].terminated == [Reason.CLOSED]


async def test_after_the_grace_the_body_is_cancelled() -> None:
    """Graceful close hung for ever on a leaked lease (asyncpg #290)."""
    worker = FakeWorker()
    revoked: list[str] = []

    async def holder(pool: Pool[FakeResource]) -> None:
        with pytest.raises(LeaseRevoked, match=r"closed while .*holder.* held a lease, for 2 s") as caught:
            async with pool.checkout():
                await trio.sleep(math.inf)
        revoked.append(str(caught.value))

    async with trio.open_nursery() as nursery:
        async with open_pool(worker, close_grace=2) as pool:
            nursery.start_soon(holder, pool)
            await wait_all_tasks_blocked()
            started = trio.current_time()
        assert trio.current_time() - started == pytest.approx(2)
    assert len(revoked) == 1
    assert worker.resources[0].terminated == [Reason.CLOSED]


async def test_a_body_that_will_not_end_does_not_hold_up_the_closing() -> None:
    worker = FakeWorker()
    refusals: list[Exception] = []

    async def stubborn(pool: Pool[FakeResource]) -> None:
        async with pool.checkout() as lease:
            with trio.CancelScope(shield=True):
                await trio.sleep(100)
            try:
                lease.resource.kill()
            except LeaseExpired as error:
                refusals.append(error)

    async with trio.open_nursery() as nursery:
        async with open_pool(worker, close_grace=2, terminate_timeout=3) as pool:
            nursery.start_soon(stubborn, pool)
            await wait_all_tasks_blocked()
            started = trio.current_time()
        assert trio.current_time() - started == pytest.approx(5)
        assert worker.resources[0].terminated == [Reason.CLOSED]
    assert [type(error) for error in refusals] == [LeaseRevoked]


async def test_by_default_the_resource_is_closed_under_its_holder() -> None:
    worker = FakeWorker()

    async def holder(pool: Pool[FakeResource]) -> None:
        async with pool.checkout() as lease:
            await trio.sleep(20)
            assert worker.resources[0].terminated == [Reason.CLOSED]
            with pytest.raises(LeaseRevoked):
                lease.resource.kill()

    async with trio.open_nursery() as nursery:
        async with open_pool(worker) as pool:
            nursery.start_soon(holder, pool)
            await wait_all_tasks_blocked()
            started = trio.current_time()
        assert trio.current_time() - started == pytest.approx(5)


async def test_a_hanging_or_failing_terminate_holds_up_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """A hanging close blocked every checkout (nimble_pool #45)."""
    worker = FakeWorker()
    worker.script("terminate", Hang(), Fail(OSError("already gone")))
    async with open_pool(worker, max_size=1, terminate_timeout=4) as pool:
        async with pool.checkout() as lease:
            lease.remove()
        async with pool.checkout(timeout=0.5) as lease:
            assert lease.resource.number == 2
            lease.remove()
        await wait_all_tasks_blocked()
        started = trio.current_time()
    assert trio.current_time() - started == pytest.approx(4)
    assert "FakeWorker.terminate took longer than 4 s" in caplog.text
    assert "already gone" in caplog.text


async def test_with_strict_size_a_closing_resource_counts() -> None:
    worker = FakeWorker()
    worker.script("terminate", Slow(3))
    async with open_pool(worker, max_size=1, strict_size=True) as pool:
        async with pool.checkout() as lease:
            lease.remove()
        started = trio.current_time()
        async with pool.checkout() as lease:
            assert lease.resource.number == 2
        assert trio.current_time() - started == pytest.approx(3)


async def test_resources_are_terminated_in_parallel() -> None:
    worker = FakeWorker()
    worker.always("terminate", Slow(2))
    async with open_pool(worker, max_size=8) as pool:
        await pool.wait_ready(8)
        started = trio.current_time()
    assert trio.current_time() - started == pytest.approx(2)


async def test_a_cancelled_block_closes_everything_all_the_same() -> None:
    """Cancelled, the clean-up bailed out at its first await: the socket lived on (SQLAlchemy #8145, #12099)."""
    worker = FakeWorker()
    worker.always("terminate", Slow(1))
    with trio.move_on_after(10) as scope:
        async with open_pool(worker, min_size=2, max_size=4) as pool:
            await pool.wait_ready()
            async with pool.checkout():
                await trio.sleep(math.inf)
    assert scope.cancelled_caught
    assert Counter(reason for resource in worker.resources for reason in resource.terminated).total() == 2


async def test_closing_is_idempotent_and_others_wait_for_it() -> None:
    worker = FakeWorker()
    worker.always("terminate", Slow(1))
    async with open_pool(worker) as pool:
        await pool.wait_ready(1)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(pool.close)
            await wait_all_tasks_blocked()
            assert pool.stats.closing == 1
        assert pool.stats.closing == 0
    assert worker.count("terminate") == 1
    assert worker.count("stop") == 1


async def test_serve_pool_runs_a_pool_in_a_task() -> None:
    worker = FakeWorker()
    async with trio.open_nursery() as nursery:
        pool: Pool[FakeResource] = await nursery.start(lambda **kwargs: serve_pool(worker, min_size=1, **kwargs))
        async with pool.checkout() as lease:
            assert lease.resource.number == 1
        await pool.close()
    assert worker.resources[0].terminated == [Reason.CLOSED]

    async with trio.open_nursery() as nursery:
        pool = await nursery.start(serve_pool, worker)
        async with pool.checkout() as lease:
            assert lease.resource.number == 2
        nursery.cancel_scope.cancel()
    assert worker.resources[1].terminated == [Reason.CLOSED]


async def test_a_crash_of_the_program_in_a_callback_is_not_swallowed() -> None:
    class Crashing(PoolWorker[int]):
        async def init(self) -> int:
            raise SystemExit(3)

    with pytest.raises(SystemExit):
        async with open_pool(Crashing()) as pool, pool.checkout():
            pass


async def test_draining_serves_who_waits_and_lets_nobody_in() -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_size=1) as pool, trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(partial(pool.run, FakeResource.use, 2))
        await wait_all_tasks_blocked()
        started = trio.current_time()
        nursery.start_soon(pool.drain)
        await wait_all_tasks_blocked()
        with pytest.raises(PoolClosed):
            await pool.run(FakeResource.use)
        await pool.drain()
        assert trio.current_time() - started == pytest.approx(4)
        assert pool.stats.waited == 2
