"""What happens when resources are opened, and when they cannot be."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from nimblepool import Backoff, CheckoutTimeout, CircuitBreaker, Fatal, Pool, PoolUnavailable, open_pool
from nimblepool.testing import Fail, FakeResource, FakeWorker, Hang, Slow


async def test_a_failing_init_is_the_cause_of_the_clients_error_and_the_pool_survives() -> None:
    worker = FakeWorker()
    error = OSError("refused")
    worker.script("init", Fail(error))
    async with open_pool(worker) as pool:
        with pytest.raises(PoolUnavailable, match="refused") as caught:
            await pool.run(FakeResource.use)
        assert caught.value.__cause__ is error
        assert 0 <= caught.value.retry_after <= 1
        async with pool.checkout() as lease:
            assert lease.resource.number == 1
        assert pool.stats.open_failures == 1
        assert pool.stats.failed == 1


async def test_a_hanging_init_is_cut_off() -> None:
    worker = FakeWorker()
    worker.script("init", Hang())
    async with open_pool(worker, init_timeout=2) as pool:
        with pytest.raises(PoolUnavailable) as caught:
            await pool.run(FakeResource.use)
        assert isinstance(caught.value.__cause__, trio.TooSlowError)
        assert "FakeWorker.init took longer than 2 s" in str(caught.value.__cause__)


async def test_opening_outlives_the_client_that_asked_for_it() -> None:
    """A caller's short deadline cancelled every connect, so that the pool never filled (pgx #1259)."""
    worker = FakeWorker()
    worker.always("init", Slow(3))
    async with open_pool(worker, max_size=1) as pool:
        for _ in range(2):
            with pytest.raises(CheckoutTimeout):
                async with pool.checkout(timeout=1):
                    pass
        async with pool.checkout(timeout=1.5) as lease:
            assert lease.resource.number == 1
        assert worker.count("init") == 1


async def test_a_failed_open_lets_the_next_waiter_try() -> None:
    """A failed open woke nobody: the pool drained to zero and never refilled (HikariCP #1474, deadpool)."""
    worker = FakeWorker()
    worker.script("init", Fail(OSError("first")))
    outcomes: list[object] = []
    async with open_pool(worker, max_size=1) as pool, trio.open_nursery() as nursery:

        async def client() -> None:
            try:
                async with pool.checkout() as lease:
                    outcomes.append(lease.resource.number)
            except PoolUnavailable as error:
                outcomes.append(type(error))

        for _ in range(3):
            nursery.start_soon(client)
    assert outcomes == [PoolUnavailable, 1, 1]


async def test_with_wait_a_failure_keeps_the_waiter_queued() -> None:
    worker = FakeWorker()
    worker.script("init", *[Fail(OSError(f"no {attempt}")) for attempt in range(3)])
    async with open_pool(worker, on_open_failure="wait", backoff=Backoff(jitter="none")) as pool:
        started = trio.current_time()
        async with pool.checkout(timeout=60) as lease:
            assert lease.resource.number == 1
        assert trio.current_time() - started == pytest.approx(1 + 2 + 4)


async def test_a_fatal_failure_is_not_waited_out() -> None:
    worker = FakeWorker()
    error = PermissionError("wrong password")
    worker.script("init", Fail(Fatal(error)))
    async with open_pool(worker, on_open_failure="wait", backoff=Backoff(jitter="none")) as pool:
        started = trio.current_time()
        with pytest.raises(PoolUnavailable) as caught:
            await pool.run(FakeResource.use)
        assert caught.value.__cause__ is error
        assert trio.current_time() == started
        await pool.run(FakeResource.use)
        assert trio.current_time() - started == pytest.approx(1)


async def test_who_waits_for_readiness_is_told_of_a_fatal_failure() -> None:
    worker = FakeWorker()
    error = PermissionError("wrong password")
    worker.script("init", Fail(OSError("down")), Fail(Fatal(error)))
    async with open_pool(worker, on_open_failure="wait") as pool:
        with pytest.raises(PoolUnavailable) as caught:
            await pool.wait_ready()
        assert caught.value.__cause__ is error
        assert pool.stats.open_failures == 2


async def test_a_timeout_during_an_outage_has_the_last_failure_as_its_cause() -> None:
    worker = FakeWorker()
    error = OSError("down")
    worker.always("init", Fail(error))
    async with open_pool(worker, on_open_failure="wait", breaker=None) as pool:
        with pytest.raises(CheckoutTimeout, match=r"failures? to open in a row") as caught:
            await pool.run(FakeResource.use)
        assert caught.value.__cause__ is error


async def test_failures_are_retried_by_a_single_prober_with_backoff() -> None:
    """Every slot retried a failed handshake with no back-off: 12,500 connects/s from 25 (porsager/postgres #1179)."""
    worker = FakeWorker()
    worker.always("init", Fail(OSError("down")))
    async with open_pool(worker, min_size=25, max_size=25, backoff=Backoff(base=1, cap=30, jitter="none")) as pool:
        await wait_all_tasks_blocked()
        first_burst = worker.count("init")
        assert first_burst == 25
        await trio.sleep(300)
        # 1 + 2 + 4 + 8 + 16, and 30 from then on
        assert worker.count("init") == first_burst + 5 + (300 - 31) // 30
        assert pool.stats.size == 0


async def test_min_size_comes_back_by_itself_after_an_outage_and_gently() -> None:
    """After an outage of minutes nobody tried again until a request came (psycopg #1315)."""
    worker = FakeWorker()
    at_once: list[int] = []
    worker.always("init", Fail(OSError("down")))
    async with open_pool(worker, min_size=8, max_size=8) as pool:
        await trio.sleep(300)
        assert pool.stats.size == 0
        worker.always("init", Slow(1))
        for _ in range(60):
            at_once.append(pool.stats.opening)
            await trio.sleep(1)
        assert pool.stats.idle == 8
    growth = [count for count, before in zip(at_once, [0, *at_once], strict=False) if count != before and count]
    assert growth[0] == 1, "a single prober first"
    assert max(growth) <= 4, "then twice as many with each round"


async def test_an_open_breaker_refuses_at_once() -> None:
    worker = FakeWorker()
    worker.always("init", Fail(OSError("down")))
    async with open_pool(worker, max_size=1, breaker=CircuitBreaker(3), backoff=Backoff(jitter="none")) as pool:
        for _ in range(3):
            with pytest.raises(PoolUnavailable):
                await pool.run(FakeResource.use)
        assert pool.stats.breaker == "open"
        attempts = worker.count("init")
        started = trio.current_time()
        with pytest.raises(PoolUnavailable) as caught:
            await pool.run(FakeResource.use)
        assert trio.current_time() == started
        assert worker.count("init") == attempts
        assert caught.value.retry_after == pytest.approx(4)


async def test_a_half_open_breaker_makes_one_attempt_and_closes_on_success() -> None:
    worker = FakeWorker()
    worker.always("init", Fail(OSError("down")))
    async with open_pool(worker, max_size=5, breaker=CircuitBreaker(1), backoff=Backoff(jitter="none")) as pool:
        with pytest.raises(PoolUnavailable):
            await pool.run(FakeResource.use)
        await trio.sleep(1)
        before = pool.stats
        assert before.breaker == "half-open"
        worker.always("init", Slow(1))
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(partial(pool.run, FakeResource.use, 0.1))
            await wait_all_tasks_blocked()
            assert pool.stats.opening == 1
        assert pool.stats.breaker == "closed"


async def test_living_resources_are_lent_while_the_breaker_is_open() -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_size=3, breaker=CircuitBreaker(1), backoff=Backoff(jitter="none")) as pool:
        async with pool.checkout() as lease:
            worker.always("init", Fail(OSError("down")))
            with pytest.raises(PoolUnavailable):
                await pool.run(FakeResource.use)
            assert pool.stats.breaker == "open"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(pool.run, FakeResource.use))
                await trio.sleep(0.5)
                assert pool.stats.waiting == 1, "it waits for the one that is leased"
                lease.release()
        async with pool.checkout(timeout=0):
            pass


async def test_a_failing_start_comes_out_of_open_pool() -> None:
    worker = FakeWorker()
    worker.script("start", Fail(RuntimeError("no licence")))
    with pytest.raises(RuntimeError, match="no licence"):
        async with open_pool(worker):
            raise AssertionError("unreachable")
    assert worker.count("stop") == 0


async def test_max_opening_bounds_the_attempts_at_a_time() -> None:
    worker = FakeWorker()
    worker.always("init", Slow(1))
    async with open_pool(worker, min_size=6, max_size=6, max_opening=2) as pool:
        await wait_all_tasks_blocked()
        assert pool.stats.opening == 2
        started = trio.current_time()
        await pool.wait_ready(6)
        assert trio.current_time() - started == pytest.approx(3)


async def test_wait_ready_reports_a_failure_or_goes_on_waiting() -> None:
    worker = FakeWorker()
    worker.script("init", Fail(OSError("down")))
    async with open_pool(worker) as pool:
        with pytest.raises(PoolUnavailable, match="down"):
            await pool.wait_ready(2)
        with pytest.raises(ValueError, match="n must be at most max_size"):
            await pool.wait_ready(11)
    worker = FakeWorker()
    worker.script("init", Fail(OSError("down")))
    async with open_pool(worker, on_open_failure="wait") as pool:
        await pool.wait_ready(2)
        assert pool.stats.idle == 2


async def test_everybody_who_waits_for_readiness_hears_of_a_failure() -> None:
    worker = FakeWorker()
    worker.always("init", Fail(OSError("down")))
    refused: list[str] = []

    async def wait(pool: Pool[FakeResource]) -> None:
        with pytest.raises(PoolUnavailable) as caught:
            await pool.wait_ready(1)
        refused.append(str(caught.value.__cause__))

    async with open_pool(worker) as pool:
        with trio.fail_after(1):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(wait, pool)
    assert refused == ["down"] * 3
