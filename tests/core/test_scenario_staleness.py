"""Bugs that real pools had: stale resources, outages and herds."""

from __future__ import annotations

import random
from contextlib import suppress
from functools import partial
from itertools import pairwise

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from nimblepool import Backoff, CheckoutTimeout, PoolUnavailable, Reason, Verdict, open_pool
from nimblepool.testing import Fail, FakeResource, FakeWorker, Hang, Slow

DOWN = Fail(OSError("down"))

# Age and idleness


async def test_a_quiet_pool_closes_what_is_too_old_without_being_asked() -> None:
    """Age was looked at only on return: a quiet pool lent dead connections (psycopg #584, golang #45993)."""
    worker = FakeWorker()
    async with open_pool(worker, min_size=3, max_size=3, max_age=60) as pool:
        await pool.wait_ready()
        first = worker.resources[:3]
        await trio.sleep(61)
        assert all(resource.terminated == [Reason.AGE] for resource in first)
        assert pool.stats.idle == 3, "there are new ones in their place"


async def test_a_quiet_pool_closes_what_is_idle_too_long_without_being_asked() -> None:
    """The same for idleness (psycopg #584, golang #45993)."""
    worker = FakeWorker()
    async with open_pool(worker, min_size=1, max_size=4, max_idle=60) as pool:
        await pool.wait_ready(4)
        await trio.sleep(59)
        assert pool.stats.idle == 4
        await trio.sleep(2)
        assert pool.stats.idle == 1
        assert sorted(reason for resource in worker.resources for reason in resource.terminated) == [Reason.IDLE] * 3


@pytest.mark.parametrize("capacity", [None, 3])
async def test_nothing_older_than_max_age_is_ever_lent(capacity: int | None) -> None:
    """Not after a wait, a ping, a reset or a pause either (psycopg #584, golang #45993)."""
    rng = random.Random(26)
    worker = FakeWorker(capacity=capacity)
    worker.always("ping", Slow(2))
    worker.always("reset", Slow(2))
    ages: list[float] = []
    async with open_pool(
        worker, min_size=1, max_size=4, max_age=10, ping_every=1, ping_after=0.5, checkout_timeout=None
    ) as pool:

        async def client() -> None:
            for _ in range(15):
                await trio.sleep(rng.uniform(0, 20))
                async with pool.checkout() as lease:
                    ages.append(lease.age)
                    await trio.sleep(rng.choice([0, 0, 1, 15]))
                    worker.script("checkin", rng.choice([Verdict.OK, Verdict.RESET]))

        async def owner() -> None:
            while True:
                await trio.sleep(rng.uniform(5, 20))
                pool.pause()
                await trio.sleep(rng.uniform(0, 10))
                pool.resume()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(owner)
            async with trio.open_nursery() as clients:
                for _ in range(10):
                    clients.start_soon(client)
            nursery.cancel_scope.cancel()
    assert len(ages) == 150
    assert 5 < max(ages) < 10


async def test_nothing_too_old_is_lent_when_the_program_was_held_up() -> None:
    """Nor by a loop that was blocked, or a machine that slept, before the keeper has looked (golang #45993)."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    async with open_pool(FakeWorker(), max_size=2, max_age=60) as pool:
        await pool.wait_ready(2)
        clock.jump(100)
        async with pool.checkout() as lease:
            assert lease.resource.number == 3
            assert lease.age == 0


# Pings and messages


async def test_pings_do_not_make_a_resource_younger() -> None:
    """A ping counted as a fresh start, so that connections never aged (db_connection #347)."""
    worker = FakeWorker()
    async with open_pool(worker, max_size=1, max_age=60, ping_every=5) as pool:
        await pool.wait_ready(1)
        await trio.sleep(30)
        async with pool.checkout() as lease:
            assert lease.age == pytest.approx(30)
        await trio.sleep(31)
        assert worker.resources[0].terminated == [Reason.AGE]
        assert worker.count("ping") >= 9


@pytest.mark.parametrize("verdict", [Verdict.OK, Verdict.RESET])
async def test_pings_and_messages_are_no_use(verdict: Verdict) -> None:
    """Neither idleness nor the count of uses may notice them (db_connection #347)."""
    worker = FakeWorker()
    worker.always("message", verdict)
    async with open_pool(worker, max_size=1, max_idle=60, max_uses=3, ping_every=5) as pool:
        await pool.run(FakeResource.use)
        await trio.sleep(0.5)  # no message meets a ping: what is being pinged gets none
        for _ in range(29):
            await trio.sleep(2)
            pool.broadcast("news")
        assert worker.resources[0].is_open
        assert worker.count("message") == 29
        await trio.sleep(2)
        assert worker.resources[0].terminated == [Reason.IDLE]


async def test_pings_do_not_change_whose_turn_it_is() -> None:
    """The last one used is lent next, not the last one pinged: else nothing ever became idle (db_connection #347)."""
    worker = FakeWorker()
    async with open_pool(worker, max_size=3, ping_every=10, max_idle=100) as pool:
        await pool.wait_ready(3)
        for _ in range(30):
            assert await pool.run(FakeResource.use) == 3
            await trio.sleep(4)
        assert worker.count("ping") > 10
        assert pool.stats.size == 1


# Herds (see also test_failures_are_retried_by_a_single_prober_with_backoff in test_opening.py)


async def test_a_crowd_of_clients_makes_no_more_attempts_than_the_backoff_allows() -> None:
    """25 slots made 12,500 connects a second while the handshake failed (porsager/postgres #1179)."""
    worker = FakeWorker()
    worker.always("init", DOWN)
    async with open_pool(
        worker, max_size=25, on_open_failure="wait", backoff=Backoff(base=1, cap=8, jitter="none"), breaker=None
    ) as pool:

        async def client() -> None:
            while True:
                with suppress(CheckoutTimeout):
                    await pool.run(FakeResource.use, 1)

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(client)
            await wait_all_tasks_blocked()
            burst = worker.count("init")
            assert burst == 25, "nobody knew yet"
            await trio.sleep(7 + 8 * 10 + 1)
            assert worker.count("init") == burst + 3 + 10, "after 1, 2, 4 and then every 8 seconds"

            worker.always("init", Slow(1))
            growth = []
            for _ in range(15):
                growth.append(pool.stats.opening)
                await trio.sleep(1)
            assert pool.stats.leased == 25
            nursery.cancel_scope.cancel()
    busy = [count for count in growth if count]
    assert busy[0] == 1, "one prober"
    assert all(later <= 2 * sooner for sooner, later in pairwise(busy)), "then gently more"


# After an outage (see also test_min_size_comes_back_by_itself_after_an_outage_and_gently in test_opening.py)


@pytest.mark.parametrize("watched", [True, False], ids=["watched", "pinged"])
async def test_min_size_comes_back_by_itself_when_the_outage_is_over(watched: bool) -> None:
    """After some minutes nobody tried again until a request came (psycopg #1315)."""
    worker = FakeWorker(watched=watched)
    async with open_pool(worker, min_size=4, max_size=10, ping_every=10) as pool:
        await pool.wait_ready()
        worker.always("init", DOWN)
        for resource in worker.resources:
            resource.kill()
        await trio.sleep(3600)
        assert pool.stats.size == 0
        assert pool.stats.breaker != "closed"
        worker.always("init", None)
        await trio.sleep(31)
        assert pool.stats.idle == 4
        assert pool.stats.started == 0, "without any request"


# Hanging closes (see also test_a_hanging_or_failing_terminate_holds_up_nobody in test_closing.py)


async def test_resources_that_hang_in_their_close_hold_up_no_checkout() -> None:
    """A hanging close blocked every checkout (nimble_pool #45)."""
    worker = FakeWorker()
    worker.always("terminate", Hang())
    async with open_pool(worker, max_size=3, terminate_timeout=10) as pool:
        started = trio.current_time()
        for generation in range(1, 4):
            await pool.wait_ready(3)
            pool.refresh()
            assert pool.stats.closing == 3 * generation
            assert pool.stats.size <= 3
            async with pool.checkout(timeout=0.1):
                pass
        assert trio.current_time() == started
    assert trio.current_time() - started == pytest.approx(10), "and the closing waits for the deadline only"


# Failing opens


@pytest.mark.parametrize("failure", [DOWN, Fail(ValueError("a bug in init"))])
async def test_a_failing_init_is_retried_as_slowly_as_the_backoff_says(failure: Fail) -> None:
    """It was retried 185,000 times a second (NimblePool)."""
    worker = FakeWorker()
    worker.always("init", failure)
    async with open_pool(worker, min_size=1, max_size=5, backoff=Backoff(base=1, cap=16, jitter="none")) as pool:

        async def client() -> None:
            while True:
                with pytest.raises(PoolUnavailable) as caught:
                    await pool.run(FakeResource.use)
                assert caught.value.__cause__ is failure.error
                await trio.sleep(0.1)  # it insists

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(client)
            await trio.sleep(1 + 2 + 4 + 8 + 16 * 5 + 0.5)
            nursery.cancel_scope.cancel()
        assert worker.count("init") <= 3 + 4 + 5, "the first burst, and then one at a time"
        assert pool.stats.failed > 500


# Fail-over


async def test_a_refresh_verdict_at_checkin_retires_the_whole_generation() -> None:
    """After a fail-over every connection pinged well and failed every write (asyncpg #704)."""

    class ReadOnlyError(Exception):
        pass

    class FailingOver(FakeWorker):
        def checkin(self, resource: FakeResource, error: BaseException | None) -> Verdict:
            return Verdict.REFRESH if isinstance(error, ReadOnlyError) else super().checkin(resource, error)

    worker = FailingOver()
    worker.script("init", *[None] * 4, Slow(5))  # the fifth is on its way to the old server
    async with open_pool(worker, max_size=5, ping_every=10) as pool, trio.open_nursery() as nursery:
        await pool.wait_ready(4)
        nursery.start_soon(partial(pool.wait_ready, 5))
        nursery.start_soon(partial(pool.run, FakeResource.use, 3))  # may finish what it does
        await wait_all_tasks_blocked()
        old = worker.resources[:4]
        assert pool.stats.opening == 1

        with pytest.raises(ReadOnlyError):
            async with pool.checkout():
                raise ReadOnlyError
        assert pool.stats.idle == 0
        await wait_all_tasks_blocked()
        assert sorted(reason for resource in old for reason in resource.terminated) == sorted(
            [Reason.REMOVED, Reason.REFRESH, Reason.REFRESH]
        )
        for _ in range(10):
            async with pool.checkout() as lease:
                assert lease.resource not in old
        await trio.sleep(4)
        assert not any(resource.is_open for resource in old), "the leased one went at its checkin"
        assert pool.stats.idle == 5


async def test_a_refresh_verdict_at_checkout_serves_the_client_from_the_new_generation() -> None:
    """The same when it is noticed before the loan (asyncpg #704)."""
    worker = FakeWorker()
    async with open_pool(worker, max_size=3) as pool:
        await pool.wait_ready(3)
        worker.script("checkout", Verdict.REFRESH)
        assert await pool.run(FakeResource.use) == 4
        await wait_all_tasks_blocked()
        assert [resource.is_open for resource in worker.resources[:3]] == [False] * 3
