"""Bugs that real pools had: capacity lost under cancellation."""

from __future__ import annotations

import math
from collections import deque
from contextlib import AsyncExitStack, suppress
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from nimblepool import (
    CheckoutTimeout,
    Pool,
    PoolObserver,
    PoolOptions,
    PoolWorker,
    Reason,
    Stage,
    Verdict,
    open_pool,
)
from nimblepool.testing import Fail, FakeResource, FakeWorker, Hang, Slow, check_balance, sweep


async def require_full_capacity(pool: Pool[FakeResource], size: int) -> None:
    """Lend ``size`` resources at the same time: none of them is lost, and no lease is left over."""
    async with AsyncExitStack() as stack:
        resources = {(await stack.enter_async_context(pool.checkout(timeout=60))).resource for _ in range(size)}
        assert len(resources) == size
        assert all(resource.is_open for resource in resources)
    assert pool.stats.leases == 0
    check_balance(pool)


async def hold(
    pool: Pool[FakeResource], seconds: float, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    async with pool.checkout(timeout=None):
        task_status.started()
        await trio.sleep(seconds)


# A slot that was assigned


async def test_a_slot_assigned_to_a_cancelled_client_still_serves_the_others() -> None:
    """A request cancelled between being assigned a slot and connecting kept the slot (httpcore #830, #1093)."""
    worker = FakeWorker()
    worker.always("init", Slow(1))
    async with open_pool(worker, max_size=2) as pool, trio.open_nursery() as others:

        async def scenario() -> None:
            for _ in range(2):
                others.start_soon(partial(pool.run, FakeResource.use, 0.5))
            await pool.run(FakeResource.use, 0.5)

        async def after() -> None:
            await require_full_capacity(pool, 2)
            pool.refresh()  # the next run has to connect again

        assert await sweep(scenario, after) >= 4


# A waiter that is cancelled


async def test_a_cancelled_waiter_hears_of_its_cancellation_and_its_resource_goes_on() -> None:
    """A cancelled waiter was handed a resource; the fix ate the cancellation (psycopg_pool #509, #1275, #1401)."""
    async with open_pool(FakeWorker(), max_size=1) as pool, trio.open_nursery() as others:
        not_cancelled = 0

        async def scenario() -> None:
            nonlocal not_cancelled
            await others.start(hold, pool, 1)
            async with pool.checkout():
                pass
            await trio.lowlevel.checkpoint()
            not_cancelled += 1

        async def after() -> None:
            await require_full_capacity(pool, 1)

        assert await sweep(scenario, after) >= 6
        assert not_cancelled == 2, "the last run of each edge; a cancellation that came sooner was delivered"


# Clean-up that raises


@pytest.mark.parametrize("callback", ["checkin", "cancelled", "terminate"])
async def test_a_failing_callback_does_not_replace_the_cancellation_of_a_holder(callback: str) -> None:
    """What the clean-up raised came out in place of the cancellation (psycopg_pool #1412)."""
    worker = FakeWorker()
    worker.always(callback, Fail(RuntimeError("careless")))
    async with open_pool(worker, max_size=1) as pool:
        with trio.move_on_after(1) as scope:
            await pool.run(FakeResource.use, math.inf)
        assert scope.cancelled_caught
        await require_full_capacity(pool, 1)
    assert worker.count(callback) > 0


async def test_a_failing_callback_does_not_replace_the_cancellation_of_a_waiter() -> None:
    """The same for a client that still waits (psycopg_pool #1412)."""

    class Careless(PoolObserver):
        def cancelled(self, pool: str, wait: float) -> None:
            raise RuntimeError("careless too")

    worker = FakeWorker()
    worker.always("cancelled", Fail(RuntimeError("careless")))
    async with open_pool(worker, max_size=1, observers=[Careless()]) as pool:
        async with pool.checkout():
            with trio.move_on_after(1) as scope:
                await pool.run(FakeResource.use)
            assert scope.cancelled_caught
        await require_full_capacity(pool, 1)
    assert ("cancelled", (Stage.QUEUED, None)) in worker.calls


# Cancelled between being lent to and knowing it


async def test_a_lease_is_never_acquired_for_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Cancelled between the inner acquire and its return, a connection was lent to nobody (asyncpg #464, #955)."""
    async with open_pool(FakeWorker(), max_size=1) as pool, trio.open_nursery() as others:

        async def scenario() -> None:
            await others.start(hold, pool, 1)
            lease = await pool.acquire()
            try:
                await trio.sleep(1)
            finally:
                lease.release()

        async def after() -> None:
            await require_full_capacity(pool, 1)

        assert await sweep(scenario, after) >= 6
    # The collector would rescue a lost lease, and say so.
    assert "never released" not in caplog.text


async def test_a_deadline_that_meets_the_hand_over_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The same race, between a deadline around ``acquire`` and the release (asyncpg #464, #955)."""
    async with open_pool(FakeWorker(), max_size=1) as pool:

        async def impatient() -> None:
            with trio.move_on_after(1):
                lease = await pool.acquire()
                lease.release()

        for _ in range(10):  # trio runs those who wake at the same time in random order
            async with trio.open_nursery() as nursery:
                await nursery.start(hold, pool, 1)
                nursery.start_soon(impatient)
            await require_full_capacity(pool, 1)
    assert "never released" not in caplog.text


# Clean-up under a cancelled scope


class Polite(FakeWorker):
    """Takes its leave in several steps, at each of which a cancelled clean-up would bail out."""

    def __init__(self) -> None:
        super().__init__()
        self.goodbyes: list[FakeResource] = []

    async def terminate(self, resource: FakeResource, reason: Reason) -> None:
        for _ in range(3):
            await trio.sleep(0.5)
        await super().terminate(resource, reason)
        self.goodbyes.append(resource)


async def test_a_cancelled_scope_does_not_cut_the_closing_short() -> None:
    """The clean-up bailed out at its first await: socket and row locks lived on (SQLAlchemy #8145, #12099)."""
    workers: list[Polite] = []

    async def scenario() -> None:
        workers.append(Polite())
        async with open_pool(workers[-1], min_size=1, max_size=3) as pool:
            async with pool.checkout(), pool.checkout() as lease:
                await trio.sleep(1)
                lease.remove()
            await trio.sleep(1)

    assert await sweep(scenario) >= 8
    assert sum(len(worker.resources) for worker in workers) > 8
    for worker in workers:
        assert sorted(worker.resources, key=id) == sorted(worker.goodbyes, key=id)


async def test_a_hanging_clean_up_under_a_cancelled_scope_ends_at_its_deadline() -> None:
    """Shielded, but not for ever (SQLAlchemy #8145, #12099)."""
    worker = FakeWorker()
    worker.always("terminate", Hang())
    started = trio.current_time()
    with trio.CancelScope() as scope:
        async with open_pool(worker, terminate_timeout=3) as pool:
            await pool.wait_ready(2)
            scope.cancel()
            await pool.run(FakeResource.use)
    assert scope.cancelled_caught
    assert trio.current_time() - started == pytest.approx(3)
    assert worker.count("terminate") == 2


# Unread replies


class Wire:
    """Answers requests in the order in which they were sent, whoever reads."""

    def __init__(self) -> None:
        self.unread: deque[str] = deque()

    async def ask(self, question: str) -> str:
        self.unread.append(f"answer to {question}")
        await trio.sleep(1)
        if question == "nonsense":
            raise ValueError(question)
        return self.unread.popleft()


class WireWorker(PoolWorker[Wire]):
    async def init(self) -> Wire:
        return Wire()


class VouchingWireWorker(WireWorker):
    def checkin(self, resource: Wire, error: BaseException | None) -> Verdict:
        return Verdict.REMOVE if resource.unread else Verdict.OK


@pytest.mark.parametrize("worker", [WireWorker(), VouchingWireWorker()])
async def test_nobody_reads_the_answer_to_somebody_elses_question(worker: PoolWorker[Wire]) -> None:
    """A reply nobody had read reached the next user of the connection (redis-py #2665)."""
    async with open_pool(worker, max_size=1) as pool:
        with trio.move_on_after(0.5) as scope:
            await pool.run(Wire.ask, "cancelled")
        assert scope.cancelled_caught
        assert await pool.run(Wire.ask, "second") == "answer to second"
        with pytest.raises(ValueError, match="nonsense"):
            await pool.run(Wire.ask, "nonsense")
        assert await pool.run(Wire.ask, "third") == "answer to third"
        assert pool.stats.lost == 2


async def test_a_worker_that_vouches_keeps_the_resource() -> None:
    """The other half of redis-py #2665: what is known to be clean need not be thrown away."""
    async with open_pool(VouchingWireWorker(), max_size=1) as pool:
        with trio.move_on_after(1.5) as scope:
            async with pool.checkout() as lease:
                await lease.resource.ask("in time")
                await trio.sleep(math.inf)
        assert scope.cancelled_caught
        assert pool.stats.lost == 0
        assert pool.stats.idle == 1


# Releasing


@pytest.mark.parametrize(
    "options",
    [
        PoolOptions(max_size=1),
        PoolOptions(max_size=1, max_hold=60),
        PoolOptions(max_size=1, observers=[PoolObserver()]),
    ],
    ids=["plain", "timed", "observed"],
)
async def test_the_end_of_a_lease_cannot_be_cancelled(options: PoolOptions) -> None:
    """A release that was cancelled half-way left the connection in use for ever (redis-py)."""
    async with open_pool(FakeWorker(), **options) as pool:

        async def scenario() -> None:
            async with pool.checkout() as lease:
                await trio.lowlevel.checkpoint()
                lease.release()
                assert pool.stats.leases == 0
                await trio.lowlevel.checkpoint()
            async with pool.checkout():
                await trio.lowlevel.checkpoint()
            assert pool.stats.leases == 0
            with pool.checkout_nowait():
                await trio.lowlevel.checkpoint()

        async def after() -> None:
            assert pool.stats.leases == 0
            await require_full_capacity(pool, 1)

        assert await sweep(scenario, after) >= 8


async def test_a_lease_ends_at_once_in_a_scope_that_is_cancelled_already() -> None:
    """The same, with the cancellation there before the release begins (redis-py)."""
    async with open_pool(FakeWorker(), max_size=1) as pool:
        with trio.CancelScope() as scope:
            async with pool.checkout():
                scope.cancel()
            assert pool.stats.idle == 1


# Health checks and resets


@pytest.mark.parametrize("outcome", [None, Fail(OSError("dead")), Hang()])
async def test_cancelling_beside_a_health_check_loses_nothing(outcome: object) -> None:
    """Cancelled during the health check: capacity gone (aiosqlitepool, generic-connection-pool)."""
    worker = FakeWorker()
    worker.always("ping", Slow(1, outcome))
    async with open_pool(worker, max_size=2, ping_after=0.5, ping_timeout=2) as pool:

        async def scenario() -> None:
            await trio.sleep(1)
            await pool.run(FakeResource.use)

        async def after() -> None:
            await require_full_capacity(pool, 2)

        assert await sweep(scenario, after) >= 4
        assert worker.count("ping") > 4


@pytest.mark.parametrize("outcome", [None, Fail(OSError("dead")), Hang()])
async def test_cancelling_beside_a_reset_loses_nothing(outcome: object) -> None:
    """Cancelled in the reset on return: capacity gone (aiosqlitepool, generic-connection-pool)."""
    worker = FakeWorker()
    worker.always("checkin", Verdict.RESET)  # also when the body was cancelled
    worker.always("reset", Slow(1, outcome))
    async with open_pool(worker, max_size=1, reset_timeout=2) as pool:

        async def scenario() -> None:
            for _ in range(2):
                await pool.run(FakeResource.use)

        async def after() -> None:
            await require_full_capacity(pool, 1)

        assert await sweep(scenario, after) >= 6
        assert worker.count("reset") > 6


async def test_a_resource_that_was_just_checked_is_lent_even_if_every_loan_is_checked() -> None:
    """With ``ping_after=0`` each loan costs one ping; it must not go round in circles."""
    worker = FakeWorker()
    worker.script("ping", *[None] * 20)
    worker.always("ping", Hang())  # so that going round in circles ends
    async with open_pool(worker, max_size=1, ping_after=0) as pool:
        await pool.run(FakeResource.use)
        await trio.sleep(1)
        before = worker.count("ping")
        await pool.run(FakeResource.use)
        assert worker.count("ping") == before + 1


# Returning what is dead


async def test_returning_a_dead_resource_takes_no_time_and_holds_up_the_next_for_its_deadline_only() -> None:
    """Returning a connection that had died silently waited without a deadline (sqlx #4349)."""
    worker = FakeWorker()
    worker.always("checkin", Verdict.RESET)
    worker.always("reset", Hang())
    worker.always("terminate", Hang())
    async with open_pool(worker, max_size=1, reset_timeout=2) as pool:
        await pool.run(FakeResource.use)
        returned = trio.current_time()
        async with pool.checkout() as lease:
            assert lease.resource.number == 2
            assert trio.current_time() - returned == pytest.approx(2)
        assert trio.current_time() - returned == pytest.approx(2), "the second return took no time either"


# Opening outlives its requester (see also test_opening_outlives_the_client_that_asked_for_it in test_opening.py)


@pytest.mark.parametrize("timed_out", [True, False], ids=["timed out", "cancelled"])
async def test_clients_in_a_hurry_fill_the_pool_all_the_same(timed_out: bool) -> None:
    """Deadlines shorter than a connect cancelled every connect, and the pool never filled (pgx #1259)."""
    worker = FakeWorker()
    worker.always("init", Slow(3))
    served: list[int] = []
    async with open_pool(worker, max_size=4) as pool:

        async def hurried() -> None:
            for _ in range(6):
                with trio.move_on_after(0.9), suppress(CheckoutTimeout):
                    async with pool.checkout(timeout=0.8 if timed_out else None) as lease:
                        served.append(lease.resource.number)
                await trio.sleep(0.1)

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(hurried)
        assert worker.count("init") == 4
        assert pool.stats.idle == 4
        assert len(served) >= 4 * 2


# Closing while opening (see also test_a_resource_that_is_opening_is_not_leaked in test_closing.py)


async def test_a_resource_that_arrives_after_the_pool_began_to_close_is_terminated() -> None:
    """The pool closed while a resource was opening, and that one was leaked (puddle #17)."""

    class Shielded(Polite):
        async def init(self) -> FakeResource:
            with trio.CancelScope(shield=True):
                await trio.sleep(2)
            self.resources.append(FakeResource(len(self.resources) + 1))
            return self.resources[-1]

    workers: list[Shielded] = []

    async def scenario() -> None:
        workers.append(Shielded())
        async with open_pool(workers[-1], min_size=1, max_size=2) as pool, trio.open_nursery() as nursery:
            nursery.start_soon(pool.run, FakeResource.use)
            await wait_all_tasks_blocked()
            await trio.sleep(0.5)
            nursery.cancel_scope.cancel()

    assert await sweep(scenario) >= 4
    assert all(worker.goodbyes == worker.resources for worker in workers)
    assert sum(len(worker.resources) for worker in workers) >= 4
