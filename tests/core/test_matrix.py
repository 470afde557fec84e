"""Every callback behaving in every way, cancelled at every checkpoint: nothing is lost, nothing hangs."""

from __future__ import annotations

import math
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

import pytest
import trio

from nimblepool import Backoff, CheckoutTimeout, Pool, PoolError, Skip, Verdict, open_pool
from nimblepool._pool import engine_of
from nimblepool.testing import Fail, FakeResource, FakeWorker, Hang, Slow, check_balance, sweep

if TYPE_CHECKING:
    from nimblepool._engine import Engine

PATIENCE = 1000.0

OUTCOMES = [
    pytest.param(None, id="returns"),
    pytest.param(Fail(OSError("no")), id="raises"),
    pytest.param(Slow(0.4), id="is slow"),
    pytest.param(Slow(0.4, Fail(OSError("no"))), id="raises late"),
    pytest.param(Hang(), id="hangs"),
]

ANSWERS = [
    pytest.param(callback, step, id=f"{callback}: {name}")
    for callback, names in {
        "checkout": [*Verdict, "Skip", "raises", "nonsense"],
        "checkin": [*Verdict, "Skip", "raises", "nonsense"],
        "message": [*Verdict, "Skip", "raises", "nonsense"],
        "capacity": [0, 1, 3, -1, "raises", "nonsense"],
        "enqueue": ["a request", "raises"],
        "cancelled": ["returns", "raises"],
    }.items()
    for name in names
    for step in [{"raises": Fail(OSError("no")), "Skip": Fail(Skip(KeyError("skipped")))}.get(str(name), name)]
]

EXPECTED = (OSError, KeyError, TypeError)
"""What the steps above make a checkout raise: the callback's own error, Skip's, and the one about nonsense."""


async def end_if_hung(engine: Engine[FakeResource]) -> None:
    """Let a pool end that hangs in closing, where no cancel scope reaches it; its test looks at the clock and fails."""
    await trio.sleep(PATIENCE)
    engine.state.fleet.slots.clear()
    engine.state.fleet.closing = 0
    engine._changed.unpark_all()


def guard(pool: Pool[FakeResource]) -> None:
    trio.lowlevel.spawn_system_task(end_if_hung, engine_of(pool))


async def fill(pool: Pool[FakeResource], size: int) -> None:
    """Prove that the pool still has its full capacity: ``size`` leases at the same time."""
    async with AsyncExitStack() as stack:
        resources = {(await stack.enter_async_context(pool.checkout(timeout=60))).resource for _ in range(size)}
        assert len(resources) == size
        assert all(resource.is_open for resource in resources)
    check_balance(pool)


async def hold(
    pool: Pool[FakeResource], seconds: float, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    try:
        async with pool.checkout(timeout=30):
            task_status.started()
            await trio.sleep(seconds)
    except EXPECTED:
        task_status.started()


@pytest.mark.parametrize("step", OUTCOMES)
@pytest.mark.parametrize("callback", ["init", "ping", "reset", "terminate", "watch"])
async def test_clients_are_cancelled_everywhere(callback: str, step: object) -> None:
    worker = FakeWorker(watched=True)
    worker.always("checkin", Verdict.RESET)
    async with open_pool(
        worker,
        max_size=2,
        on_open_failure="wait",
        breaker=None,
        backoff=Backoff(base=0.1, cap=0.2),
        ping_after=0.5,
        init_timeout=1,
        ping_timeout=1,
        reset_timeout=1,
        terminate_timeout=1,
    ) as pool:
        guard(pool)

        async def scenario() -> None:
            worker.always(callback, step)
            for _ in range(2):
                with suppress(CheckoutTimeout):
                    async with pool.checkout(timeout=3) as lease:
                        await trio.sleep(0.1)
                        lease.resource.kill()  # the next ping and the watch notice, whoever is first
                    await trio.sleep(1)

        async def after() -> None:
            worker.always(callback, None)
            await fill(pool, 2)

        assert await sweep(scenario, after) >= 6
        assert worker.count(callback) > 3
    assert all(len(resource.terminated) == 1 for resource in worker.resources)


@pytest.mark.parametrize("step", OUTCOMES)
@pytest.mark.parametrize("callback", ["init", "ping", "reset", "terminate", "watch", "start", "stop"])
async def test_the_whole_block_is_cancelled_everywhere(callback: str, step: object) -> None:
    workers: list[FakeWorker] = []
    longest = 0.0

    async def scenario() -> None:
        nonlocal longest
        worker = FakeWorker(watched=True)
        worker.always("init", Slow(0.05))  # so that time passes even if each resource dies at once
        worker.always(callback, step)
        worker.always("checkin", Verdict.RESET)
        workers.append(worker)
        began = trio.current_time()
        with trio.move_on_after(20), suppress(OSError):  # `start` may raise, and may take for ever
            async with open_pool(
                worker,
                min_size=1,
                max_size=2,
                on_open_failure="wait",
                breaker=None,
                backoff=Backoff(base=0.5, cap=0.5),
                ping_every=0.5,
                init_timeout=1,
                ping_timeout=1,
                reset_timeout=1,
                terminate_timeout=1,
            ) as pool:
                guard(pool)
                for _ in range(2):
                    with suppress(CheckoutTimeout):
                        async with pool.checkout(timeout=3):
                            await trio.sleep(0.1)
                    await trio.sleep(0.7)
        longest = max(longest, trio.current_time() - began)

    assert await sweep(scenario) >= 2
    assert longest < 30, "closing hung"
    for worker in workers:
        assert all(len(resource.terminated) == 1 for resource in worker.resources)
        names = [name for name, _ in worker.calls]
        assert names.count("start") <= 1
        assert "stop" not in names[:-1], "stop comes last, and once"
        if "init" in names:
            assert names[-1] == "stop"


@pytest.mark.parametrize(("callback", "step"), ANSWERS)
async def test_plain_callbacks_answer_anything_and_clients_are_cancelled_everywhere(
    callback: str, step: object
) -> None:
    worker = FakeWorker(capacity=1 if callback == "capacity" else None)
    async with open_pool(worker, max_size=2) as pool:
        guard(pool)

        async def scenario() -> None:
            worker.script(callback, step)
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    await nursery.start(hold, pool, 1)
                with suppress(*EXPECTED):
                    async with pool.checkout("request", timeout=30):  # queued
                        await trio.sleep(0.1)
            pool.broadcast("news")
            with suppress(*EXPECTED):
                async with pool.checkout("request", timeout=30):  # direct
                    await trio.sleep(0.1)

        async def after() -> None:
            worker._scripts.clear()
            pool.refresh_capacity()
            await fill(pool, 2)

        assert await sweep(scenario, after) >= 6
        assert worker.count(callback) > 3
    assert all(len(resource.terminated) == 1 for resource in worker.resources)


# What ends the program


class Crash(BaseException):
    """Like KeyboardInterrupt and SystemExit, which would end the test run."""


@pytest.mark.parametrize("callback", ["ping", "reset", "terminate", "watch"])
async def test_a_crash_in_an_asynchronous_callback_comes_out_and_nothing_hangs(callback: str) -> None:
    worker = FakeWorker(watched=True)
    worker.script("checkin", Verdict.RESET)
    began = trio.current_time()
    with pytest.raises(Crash):
        async with open_pool(worker, ping_every=1) as pool:
            guard(pool)
            await pool.wait_ready(2)
            worker.always(callback, Fail(Crash()))
            async with pool.checkout() as lease:
                pass
            if callback in {"terminate", "watch"}:
                await pool.wait_ready(3)
                lease = await pool.acquire()
                lease.remove()
                lease.release()
            await trio.sleep(math.inf)
    assert trio.current_time() - began < 30


@pytest.mark.parametrize("callback", ["checkout", "checkin", "capacity", "message", "enqueue"])
async def test_a_crash_in_a_plain_callback_comes_out_and_nothing_hangs(callback: str) -> None:
    worker = FakeWorker(capacity=1)
    began = trio.current_time()
    with pytest.raises(Crash):
        async with open_pool(worker, max_size=1) as pool:
            guard(pool)
            await pool.wait_ready(1)
            worker.script(callback, Fail(Crash()))
            pool.broadcast("news")
            async with pool.checkout(timeout=30):
                await pool.run(FakeResource.use)  # queues, and times out
    assert trio.current_time() - began < 40


# An outer scope that is cancelled reaches the body; the pool itself works on until the body has ended


@pytest.mark.parametrize("callback", ["init", "ping", "reset", "terminate"])
async def test_an_outer_cancellation_meets_a_callback_that_runs(callback: str) -> None:
    worker = FakeWorker()
    began = trio.current_time()
    with trio.move_on_after(4) as scope:
        async with open_pool(worker, ping_every=2) as pool:
            await pool.wait_ready(1)
            worker.always(callback, Hang())
            worker.always("checkin", {"reset": Verdict.RESET, "terminate": Verdict.REMOVE}.get(callback))
            async with pool.checkout():
                if callback == "init":
                    with trio.move_on_after(1):
                        await pool.run(FakeResource.use)
            guard(pool)
            await trio.sleep(math.inf)
    assert scope.cancelled_caught
    assert worker.count(callback) >= 1
    assert trio.current_time() - began < 15


async def test_an_outer_cancellation_counts_as_no_failure_to_open(caplog: pytest.LogCaptureFixture) -> None:
    worker = FakeWorker()
    worker.always("init", Slow(10))
    failures = []
    with trio.move_on_after(1):
        async with open_pool(worker, min_size=2) as pool:
            try:
                await trio.sleep(math.inf)
            finally:
                failures.append(pool.stats.open_failures)
    assert failures == [0]
    assert "failed" not in caplog.text


async def test_a_shielded_clean_up_can_open_a_resource() -> None:
    used = []
    with trio.move_on_after(1):
        async with open_pool(FakeWorker()) as pool:
            try:
                await trio.sleep(math.inf)
            finally:
                with trio.CancelScope(shield=True):
                    used.append(await pool.run(FakeResource.use))
    assert used == [1]


async def test_a_shielded_clean_up_times_out_as_always() -> None:
    waited = []
    with trio.move_on_after(1):
        async with open_pool(FakeWorker(), max_size=1) as pool, pool.checkout():
            try:
                await trio.sleep(math.inf)
            finally:
                began = trio.current_time()
                with trio.move_on_after(100, shield=True):  # a keeper that sleeps on fails the test, and hangs nothing
                    with suppress(PoolError):
                        async with pool.checkout(timeout=2):
                            pass
                waited.append(trio.current_time() - began)
    assert waited == [pytest.approx(2)]


async def test_an_error_of_a_cancelled_body_is_not_lost() -> None:
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught, trio.move_on_after(1):
        async with open_pool(FakeWorker(), min_size=2):
            try:
                await trio.sleep(math.inf)
            finally:
                raise error
    assert caught.value is error


async def test_the_pool_takes_no_part_in_a_cancellation_that_comes_after_the_block() -> None:
    """The cancellation comes while the pool closes: it is delivered when everything is closed, not swallowed."""
    worker = FakeWorker()
    worker.always("terminate", Slow(2))
    with trio.move_on_after(1) as scope:
        async with open_pool(worker, min_size=1) as pool:
            await pool.wait_ready()
        await trio.lowlevel.checkpoint()
        raise AssertionError("not reached")
    assert scope.cancelled_caught
    assert worker.count("terminate") == 1
