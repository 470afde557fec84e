"""The figures of a pool."""

from __future__ import annotations

import dataclasses
import random
import sys
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from nimblepool import (
    Backoff,
    CheckoutTimeout,
    CircuitBreaker,
    NoneIdle,
    PoolClosed,
    PoolError,
    PoolOverloaded,
    PoolStats,
    PoolUnavailable,
    Skip,
    Verdict,
    open_pool,
)
from nimblepool.testing import Fail, FakeResource, FakeWorker, Hang, Slow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from nimblepool import Pool

REAL_SECONDS = 0.5


async def test_stats_are_frozen() -> None:
    async with open_pool(FakeWorker()) as pool:
        stats = pool.stats
        with pytest.raises(dataclasses.FrozenInstanceError):
            stats.size = 3  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
        await pool.run(FakeResource.use)
        assert stats.size == 0, "a reading does not change"
        assert pool.stats.size == 1


async def test_a_new_pool() -> None:
    async with open_pool(FakeWorker(), name="db", min_size=0, max_size=7) as pool:
        figures = dataclasses.asdict(pool.stats)
        assert figures.pop("name") == "db"
        assert figures.pop("max_size") == 7
        assert figures.pop("breaker") == "closed"
        assert figures.pop("status") == "open"
        assert set(figures.values()) == {0}


async def test_what_resources_do() -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_size=6) as pool, trio.open_nursery() as nursery:
        await pool.wait_ready(5)
        # one stays idle, one is leased, one is reset, one is closing; the fifth is leased and retired
        worker.script("reset", Slow(10))
        worker.script("terminate", Slow(10))
        leases = [await pool.acquire() for _ in range(4)]
        worker.script("checkin", Verdict.RESET, Verdict.REMOVE)
        leases[0].release()
        leases[1].release()
        leases[2].remove()
        stats = pool.stats
        assert (stats.size, stats.idle, stats.leased, stats.checking, stats.opening, stats.closing) == (
            4,
            1,
            2,
            1,
            0,
            1,
        )
        assert stats.leases == 2
        worker.script("init", Slow(10))
        async with pool.checkout():
            nursery.start_soon(pool.run, FakeResource.use)
            nursery.start_soon(pool.run, FakeResource.use)
            await wait_all_tasks_blocked()
            stats = pool.stats
            assert (stats.size, stats.opening, stats.waiting) == (5, 1, 2), "the second counts on the reset"
        leases[2].release()
        leases[3].release()


async def test_a_ping_is_checking() -> None:
    worker = FakeWorker()
    worker.always("ping", Slow(5))
    async with open_pool(worker, ping_every=10) as pool:
        await pool.wait_ready(2)
        await trio.sleep(12)
        assert (pool.stats.size, pool.stats.idle, pool.stats.checking) == (2, 0, 2)


async def test_waits() -> None:
    async with open_pool(FakeWorker(), max_size=1, checkout_timeout=None) as pool, trio.open_nursery() as nursery:
        async with pool.checkout():
            for _ in range(3):
                nursery.start_soon(pool.run, FakeResource.use)
                await trio.sleep(2)
            assert pool.stats.waiting == 3
            assert pool.stats.oldest_wait == pytest.approx(6)
            assert pool.stats.longest_wait == 0
        await wait_all_tasks_blocked()
        assert pool.stats.oldest_wait == 0
        assert pool.stats.longest_wait == pytest.approx(6)
        assert pool.stats.waited == 4


async def test_leases_on_shared_resources() -> None:
    async with open_pool(FakeWorker(capacity=3)) as pool:
        leases = [await pool.acquire() for _ in range(4)]
        assert (pool.stats.leases, pool.stats.leased, pool.stats.size) == (4, 2, 2)
        for lease in leases:
            lease.release()


async def outcome_direct(pool: Pool[FakeResource], worker: FakeWorker) -> None:
    await pool.run(FakeResource.use)


async def outcome_waited(pool: Pool[FakeResource], worker: FakeWorker) -> None:
    async with trio.open_nursery() as nursery, pool.checkout():
        nursery.start_soon(pool.run, FakeResource.use)
        await wait_all_tasks_blocked()


async def outcome_timed_out(pool: Pool[FakeResource], worker: FakeWorker) -> None:
    async with pool.checkout():
        for timeout in (0, 1):
            with pytest.raises(CheckoutTimeout):
                async with pool.checkout(timeout=timeout):
                    pass


async def outcome_shed(pool: Pool[FakeResource], worker: FakeWorker) -> None:
    async with pool.checkout(), trio.open_nursery() as nursery:
        nursery.start_soon(pool.run, FakeResource.use)
        await wait_all_tasks_blocked()
        with pytest.raises(PoolOverloaded):
            await pool.run(FakeResource.use)
        nursery.cancel_scope.cancel()


async def outcome_cancelled(pool: Pool[FakeResource], worker: FakeWorker) -> None:
    async with pool.checkout():
        with trio.move_on_after(1):
            await pool.run(FakeResource.use)


async def outcome_refused(pool: Pool[FakeResource], worker: FakeWorker) -> None:
    async with pool.checkout():
        with pytest.raises(NoneIdle):
            pool.checkout_nowait()
        worker.script("enqueue", Fail(KeyError("no")))
        with pytest.raises(KeyError):
            await pool.run(FakeResource.use)
    worker.script("checkout", Fail(Skip(KeyError("skipped"))))
    with pytest.raises(KeyError):
        await pool.run(FakeResource.use)
    await pool.close()
    with pytest.raises(PoolClosed):
        await pool.run(FakeResource.use)
    with pytest.raises(PoolClosed):
        pool.checkout_nowait()


async def outcome_failed(pool: Pool[FakeResource], worker: FakeWorker) -> None:
    worker.script("checkout", Fail(OSError("broken")))
    with pytest.raises(OSError, match="broken"):
        await pool.run(FakeResource.use)
    worker.script("init", Fail(OSError("down")))
    with pytest.raises(PoolUnavailable):
        await pool.run(FakeResource.use)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (outcome_direct, {"direct": 1}),
        (outcome_waited, {"direct": 1, "waited": 1}),
        (outcome_timed_out, {"direct": 1, "timed_out": 2}),
        (outcome_shed, {"direct": 1, "shed": 1, "cancelled": 1}),
        (outcome_cancelled, {"direct": 1, "cancelled": 1}),
        (outcome_refused, {"direct": 1, "refused": 5}),
        (outcome_failed, {"failed": 2}),
    ],
)
async def test_each_checkout_is_in_the_books_once(
    outcome: Callable[[Pool[FakeResource], FakeWorker], Awaitable[None]], expected: dict[str, int]
) -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_size=1, max_waiting=1) as pool:
        await pool.wait_ready(1)
        await outcome(pool, worker)
        stats = pool.stats
        names = ("direct", "waited", "timed_out", "shed", "cancelled", "refused", "failed")
        assert {name: count for name in names if (count := getattr(stats, name))} == expected
        assert stats.started == sum(expected.values())
        assert stats.balanced


async def test_what_became_of_resources() -> None:
    worker = FakeWorker(watched=True)
    async with open_pool(worker, max_uses=2) as pool:
        for _ in range(2):
            await pool.run(FakeResource.use)  # used up: in the order of things
        async with pool.checkout() as lease:
            lease.remove()  # lost
        async with pool.checkout() as lease:
            lease.resource.kill()
            await wait_all_tasks_blocked()  # lost
        worker.script("init", Fail(OSError("down")))
        with pytest.raises(PoolUnavailable):
            await pool.run(FakeResource.use)
        await wait_all_tasks_blocked()
        stats = pool.stats
        assert (stats.opened, stats.open_failures, stats.closed, stats.lost) == (3, 1, 3, 2)


async def test_the_state_of_the_breaker() -> None:
    worker = FakeWorker()
    worker.script("init", Fail(OSError("down")))
    async with open_pool(worker, breaker=CircuitBreaker(1), backoff=Backoff(jitter="none")) as pool:
        states = [pool.stats.breaker]
        with pytest.raises(PoolUnavailable):
            await pool.run(FakeResource.use)
        states.append(pool.stats.breaker)
        await trio.sleep(1)
        states.append(pool.stats.breaker)
        await pool.run(FakeResource.use)
        states.append(pool.stats.breaker)
    assert states == ["closed", "open", "half-open", "closed"]


async def test_balanced_tells_books_that_do_not_balance() -> None:
    async with open_pool(FakeWorker()) as pool:
        assert pool.stats.balanced
        assert not dataclasses.replace(pool.stats, started=1).balanced


async def test_the_figures_of_a_closed_pool_stay() -> None:
    async with open_pool(FakeWorker()) as pool:
        await pool.run(FakeResource.use)
    assert (pool.stats.size, pool.stats.opened, pool.stats.closed) == (0, 1, 1)
    assert repr(pool) == "<Pool 'pool': size 0 of 10, leased 0, waiting 0>"


async def test_reading_takes_as_long_in_a_large_pool_as_in_a_small_one() -> None:
    """Counted in lines of Python, for a clock would tell about the machine as well."""

    async def lines_of_a_reading(resources: int, waiters: int) -> int:
        worker = FakeWorker()
        async with open_pool(worker, max_size=resources, checkout_timeout=None) as pool:
            leases = [await pool.acquire() for _ in range(resources)]
            async with trio.open_nursery() as nursery:
                for _ in range(waiters):
                    nursery.start_soon(pool.run, FakeResource.use)
                await wait_all_tasks_blocked()
                lines = count_lines(lambda: pool.stats)
                nursery.cancel_scope.cancel()
            for lease in leases:
                lease.release()
            return lines

    assert await lines_of_a_reading(2, 2) == await lines_of_a_reading(200, 500)


def count_lines(read: Callable[[], object]) -> int:
    lines = 0

    def trace(frame: object, event: str, argument: object) -> Any:  # noqa: ANN401 - itself
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        read()
    finally:
        sys.settrace(before)
    return lines


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Let the interpreter switch threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_threads")
@pytest.mark.parametrize("capacity", [None, 3])
async def test_another_thread_reads_while_the_pool_works(capacity: int | None) -> None:
    """For half a second of real time: the readings come from a thread that trio knows nothing of."""
    worker = FakeWorker(capacity=capacity)
    rng = random.Random(1)
    readings: list[PoolStats] = []
    errors: list[BaseException] = []
    done = threading.Event()

    async with open_pool(worker, max_size=3, max_waiting=20, max_uses=50) as pool:

        def read() -> None:
            try:
                while not done.is_set():
                    readings.append(pool.stats)
            except BaseException as error:
                errors.append(error)

        async def client() -> None:
            while not done.is_set():
                with suppress(PoolError), trio.move_on_after(rng.choice([0.5, 100])):
                    async with pool.checkout(timeout=rng.choice([1, 30])):
                        await trio.sleep(rng.choice([0, 1]))

        thread = threading.Thread(target=read)
        timer = threading.Timer(REAL_SECONDS, done.set)
        thread.start()
        timer.start()
        async with trio.open_nursery() as nursery:
            for _ in range(25):
                nursery.start_soon(client)
        thread.join()
        timer.join()
    assert errors == []
    assert len(readings) > 50
    assert all(reading.balanced for reading in readings)
    for reading in readings:
        parts = (reading.idle, reading.leased, reading.opening, reading.checking)
        assert sum(parts) == reading.size
        assert min(parts) >= 0, reading
        assert reading.size <= 3, reading
        assert reading.waiting <= 25, reading
        assert reading.oldest_wait >= 0, reading
    assert readings[-1].waited > readings[0].waited


async def test_a_thread_reads_while_the_pool_is_busy_elsewhere() -> None:
    worker = FakeWorker()
    worker.always("init", Hang())
    async with open_pool(worker, max_size=2) as pool, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(pool.run, FakeResource.use)
        await wait_all_tasks_blocked()
        readings: list[PoolStats] = []
        thread = threading.Thread(target=lambda: readings.append(pool.stats))
        thread.start()
        thread.join()  # the event loop stands still meanwhile
        assert readings == [pool.stats]
        assert (readings[0].opening, readings[0].waiting) == (2, 3)
        nursery.cancel_scope.cancel()


async def test_the_status_says_what_the_pool_does() -> None:
    async with open_pool(FakeWorker(), max_size=1, name="db") as pool, trio.open_nursery() as nursery:
        seen = [pool.stats.status]
        pool.pause()
        seen.append(pool.stats.status)
        with pytest.raises(CheckoutTimeout, match=r"it is paused: call resume\(\)"):
            async with pool.checkout(timeout=1):
                pass
        pool.resume()
        nursery.start_soon(partial(pool.run, FakeResource.use, 3))
        await wait_all_tasks_blocked()
        nursery.start_soon(pool.drain)
        await wait_all_tasks_blocked()
        seen.append(pool.stats.status)
        with pytest.raises(PoolClosed, match="it is draining, and lends nothing any more"):
            await pool.run(FakeResource.use)
        nursery.start_soon(pool.close)
        await wait_all_tasks_blocked()
        seen.append(pool.stats.status)
        await pool.close()
        seen.append(pool.stats.status)
    assert seen == ["open", "paused", "draining", "closing", "closed"]
