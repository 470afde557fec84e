"""Openings that fail beside others that succeed, or succeed without being of use."""

from __future__ import annotations

import gc
import logging
import weakref

import pytest
import trio

from nimblepool import Backoff, CheckoutTimeout, CircuitBreaker, PoolUnavailable, PoolWorker, Verdict, open_pool
from nimblepool.testing import Fail, FakeResource, FakeWorker, Hang, Slow


async def test_a_client_is_served_by_the_opening_that_succeeds_beside_one_that_fails() -> None:
    worker = FakeWorker()
    worker.script("init", Slow(0.1, Fail(OSError("refused"))), Slow(0.2))
    started = trio.current_time()
    async with open_pool(worker, min_size=2) as pool, pool.checkout():
        assert trio.current_time() - started == pytest.approx(0.2)
        assert pool.stats.open_failures == 1


class Local:
    """Something that a failing ``init`` has at hand."""


class FailsOnce(PoolWorker[int]):
    def __init__(self) -> None:
        self.kept: list[weakref.ref[Local]] = []

    async def init(self) -> int:
        local = Local()
        self.kept.append(weakref.ref(local))
        if len(self.kept) == 1:
            raise OSError("refused")
        return 1


@pytest.mark.parametrize("asked_for", ["a lease", "readiness"])
async def test_a_failure_is_forgotten_after_a_success(asked_for: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its traceback keeps everything alive that ``init`` had at hand."""
    caplog.set_level(logging.ERROR, "nimblepool")  # a record in caplog would refer to the failure
    worker = FailsOnce()
    async with open_pool(worker, on_open_failure="wait") as pool:
        if asked_for == "a lease":
            async with pool.checkout():
                pass
        else:
            await pool.wait_ready()
        gc.collect()
        assert len(worker.kept) == 2
        assert worker.kept[0]() is None


async def test_resources_that_are_never_of_use_are_opened_as_rarely_as_if_opening_failed() -> None:
    """Without capacity until ``max_idle`` closes it, each was followed by the next at once."""
    worker = FakeWorker(capacity=0)
    worker.script("init", *[None] * 12)
    worker.always("init", Hang())  # no storm, should one break out, but a count that is too high
    backoff = Backoff(base=1, cap=30, jitter="none")
    async with open_pool(worker, max_idle=0, backoff=backoff, on_open_failure="wait") as pool:
        with pytest.raises(CheckoutTimeout):
            async with pool.checkout(timeout=60):
                pass
        # after 0, 1, 3, 7, 15 and 31 seconds; each time a second one before the first is closed
        assert worker.count("init") <= 2 * 6


async def test_a_failure_to_open_is_a_warning_only_if_no_client_gets_it(caplog: pytest.LogCaptureFixture) -> None:
    worker = FakeWorker()
    worker.always("init", Fail(OSError("refused")))
    async with open_pool(worker) as pool:
        with pytest.raises(PoolUnavailable):
            await pool.run(FakeResource.use)
        assert [record.levelname for record in caplog.records if "refused" in record.message] == []
    async with open_pool(worker, min_size=1):
        await trio.sleep(0.001)
        assert [record.levelname for record in caplog.records if "refused" in record.message] == ["WARNING"]


async def test_to_each_client_an_attempt_of_its_own() -> None:
    worker = FakeWorker()
    worker.always("init", Slow(0.3, Fail(OSError("no answer"))))
    waits: list[float] = []

    async def client() -> None:
        began = trio.current_time()
        with pytest.raises(PoolUnavailable):
            await pool.run(FakeResource.use)
        waits.append(trio.current_time() - began)

    async with open_pool(worker, on_open_failure="each") as pool:
        for burst in range(3):
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(client)
            assert worker.count("init") == 10 * (burst + 1)
        assert waits == pytest.approx([0.3] * 30)
        worker.always("init", None)
        await pool.run(FakeResource.use)


async def test_to_each_his_own_does_not_hurry_what_no_client_waits_for() -> None:
    worker = FakeWorker()
    worker.always("init", Fail(OSError("refused")))
    backoff = Backoff(base=1.0, cap=1.0, jitter="none")
    async with open_pool(worker, on_open_failure="each", min_size=1, backoff=backoff):
        await trio.sleep(10.5)
        assert worker.count("init") == 11


async def test_to_each_his_own_does_not_hurry_what_dies_at_birth() -> None:
    worker = FakeWorker()
    worker.always("checkout", Verdict.REMOVE)
    async with open_pool(worker, on_open_failure="each") as pool:
        with pytest.raises((CheckoutTimeout, PoolUnavailable)):
            await pool.run(FakeResource.use)
        assert worker.count("init") < 20


async def test_an_outage_is_told_in_the_log_when_it_begins_and_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    worker = FakeWorker()
    worker.always("init", Fail(OSError("down")))
    backoff = Backoff(base=1, cap=1, jitter="none")
    async with open_pool(worker, min_size=1, backoff=backoff, breaker=CircuitBreaker(threshold=2)) as pool:
        await trio.sleep(60)
        worker.always("init", None)
        await pool.wait_ready()
    told = [record.getMessage() for record in caplog.records if "circuit breaker" in record.getMessage()]
    assert [words.split()[-1] for words in told] == ["open", "closed"]
