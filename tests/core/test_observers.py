"""What observers hear, and what it costs to have none."""

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
    Backoff,
    CheckoutTimeout,
    CircuitBreaker,
    Lease,
    LeaseTimeout,
    PoolObserver,
    PoolOverloaded,
    PoolUnavailable,
    Reason,
    Verdict,
    open_pool,
)
from nimblepool.testing import Fail, FakeResource, FakeWorker, Slow

if TYPE_CHECKING:
    from collections.abc import Iterator

Event = tuple[object, ...]


class Recorder(PoolObserver):
    """Writes down all it hears."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def named(self, name: str) -> list[Event]:
        return [event[1:] for event in self.events if event[0] == name]


def _recording(name: str) -> object:
    def method(self: Recorder, pool: str, *details: object) -> None:
        assert pool == "observed"
        self.events.append((name, *details))

    return method


EVENTS = [name for name in vars(PoolObserver) if not name.startswith("_")]
for _name in EVENTS:
    setattr(Recorder, _name, _recording(_name))


def test_every_event_is_covered_below() -> None:
    assert sorted(EVENTS) == sorted(
        [
            *("checkout", "checkin", "open", "open_failed", "close", "ping_failed", "reset_failed", "died"),
            *("timeout", "shed", "cancelled", "breaker", "leak"),
        ]
    )


async def test_a_lease_is_told_with_its_times() -> None:
    seen = Recorder()
    worker = FakeWorker()
    worker.always("init", Slow(2))
    worker.always("terminate", Slow(3))
    async with open_pool(worker, name="observed", observers=[seen]) as pool:
        await pool.run(FakeResource.use, 5)  # opens
        await pool.run(FakeResource.use, 4)  # is direct
    assert {event[0] for event in seen.events[:2]} == {"open", "checkout"}, "at the same time"
    assert seen.named("open") == [(pytest.approx(2),)]
    assert seen.events[0][1] == seen.events[1][1]
    assert seen.events[2:] == [
        ("checkin", pytest.approx(5), None),
        ("checkout", 0),
        ("checkin", pytest.approx(4), None),
        ("close", Reason.CLOSED, pytest.approx(5 + 4 + 3)),
    ]


async def test_a_checkout_is_timed_from_entering_it() -> None:
    seen = Recorder()
    async with open_pool(FakeWorker(), name="observed", observers=[seen]) as pool:
        await pool.wait_ready(1)
        checkout = pool.checkout()
        await trio.sleep(10)
        async with checkout:
            pass
    assert seen.named("checkout") == [(0,)]


async def test_all_ways_to_lend_are_told() -> None:
    seen = Recorder()
    async with open_pool(FakeWorker(), name="observed", observers=[seen]) as pool:
        await pool.wait_ready(1)
        with pool.checkout_nowait():
            await trio.sleep(1)
        lease = await pool.acquire()
        await trio.sleep(2)
        lease.release()
        assert seen.named("checkin") == [(pytest.approx(1), None), (pytest.approx(2), None)]
        assert len(seen.named("checkout")) == 2


async def test_checkin_is_told_what_the_body_raised() -> None:
    seen = Recorder()
    mine = ValueError("mine")
    async with open_pool(FakeWorker(), name="observed", observers=[seen]) as pool:
        with pytest.raises(ValueError, match="mine"):
            async with pool.checkout():
                raise mine
    assert [error for _, error in seen.named("checkin")] == [mine]


async def test_a_failure_to_open_is_told_and_the_breaker() -> None:
    seen = Recorder()
    worker = FakeWorker()
    error = OSError("down")
    worker.script("init", Slow(1, Fail(error)))
    async with open_pool(
        worker, name="observed", observers=[seen], breaker=CircuitBreaker(1), backoff=Backoff(jitter="none")
    ) as pool:
        with pytest.raises(PoolUnavailable):
            await pool.run(FakeResource.use)
        assert seen.named("open_failed") == [(error, pytest.approx(1))]
        assert seen.named("breaker") == [("open",)]
        await trio.sleep(2)
        await pool.run(FakeResource.use)
        assert seen.named("breaker")[-1] == ("closed",)


async def test_a_failed_ping_is_told_and_a_failed_reset() -> None:
    seen = Recorder()
    worker = FakeWorker()
    broken, dirty = OSError("broken"), OSError("dirty")
    worker.script("ping", Fail(broken))
    worker.script("reset", Fail(dirty))
    async with open_pool(worker, name="observed", observers=[seen], ping_every=10) as pool:
        await pool.wait_ready(1)
        await trio.sleep(11)
        worker.script("checkin", Verdict.RESET)
        await pool.run(FakeResource.use)
        await wait_all_tasks_blocked()
        assert seen.named("ping_failed") == [(broken,)]
        assert seen.named("reset_failed") == [(dirty,)]
        assert [reason for reason, _ in seen.named("close")] == [Reason.PING, Reason.RESET]


async def test_a_ping_that_runs_out_of_time_is_told() -> None:
    seen = Recorder()
    worker = FakeWorker()
    worker.script("ping", Slow(10))
    async with open_pool(worker, name="observed", observers=[seen], ping_every=10, ping_timeout=1) as pool:
        await pool.wait_ready(1)
        await trio.sleep(12)
    ((error,),) = seen.named("ping_failed")
    assert isinstance(error, trio.TooSlowError)


async def test_a_death_is_told() -> None:
    seen = Recorder()
    worker = FakeWorker(watched=True)
    error = OSError("reset by peer")
    worker.script("watch", Slow(1, Fail(error)))
    async with open_pool(worker, name="observed", observers=[seen]) as pool:
        await pool.run(FakeResource.use, 2)
        await pool.run(FakeResource.use)
        worker.resources[1].kill()
        await wait_all_tasks_blocked()
    assert seen.named("died") == [(error,), (None,)]


async def test_those_who_gave_up_are_told_with_their_wait() -> None:
    seen = Recorder()
    async with (
        open_pool(FakeWorker(), name="observed", observers=[seen], max_size=1, max_waiting=1) as pool,
        pool.checkout(),
        trio.open_nursery() as nursery,
    ):
        with pytest.raises(CheckoutTimeout):
            async with pool.checkout(timeout=3):
                pass
        with trio.move_on_after(2):
            await pool.run(FakeResource.use)
        nursery.start_soon(pool.run, FakeResource.use)
        await trio.sleep(1)
        with pytest.raises(PoolOverloaded):
            await pool.run(FakeResource.use)
        nursery.cancel_scope.cancel()
    assert seen.named("timeout") == [(pytest.approx(3),)]
    assert seen.named("cancelled") == [(pytest.approx(2),), (pytest.approx(1),)]
    assert seen.named("shed") == [(0,)]


async def test_a_leak_is_told_with_its_place() -> None:
    seen = Recorder()
    async with open_pool(FakeWorker(), name="observed", observers=[seen], max_hold=5) as pool:
        lease = await pool.acquire(owner=None)
        await trio.sleep(1)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del lease
            gc.collect()
            await wait_all_tasks_blocked()
        assert len(caught) == 1
        with pytest.raises(LeaseTimeout):
            await pool.run(FakeResource.use, math.inf)
    (lost, held), (stack, overdue) = seen.named("leak")
    assert "test_observers.py:" in str(lost)
    assert held == pytest.approx(1)
    assert "sleep_forever" in str(stack) or "in use" in str(stack)
    assert overdue == pytest.approx(5)


async def test_several_observers_hear_the_same() -> None:
    seen = Recorder(), Recorder()
    async with open_pool(FakeWorker(), name="observed", observers=iter(seen)) as pool:
        await pool.run(FakeResource.use)
    assert seen[0].events == seen[1].events != []


async def test_an_observer_that_raises_is_logged_and_dropped(caplog: pytest.LogCaptureFixture) -> None:
    class Careless(PoolObserver):
        heard = 0

        def checkout(self, pool: str, wait: float) -> None:
            self.heard += 1
            raise RuntimeError("careless")

        def checkin(self, pool: str, used: float, error: BaseException | None) -> None:
            self.heard += 1

    careless, seen = Careless(), Recorder()
    async with open_pool(FakeWorker(), name="observed", observers=[careless, seen]) as pool:
        for _ in range(3):
            assert await pool.run(FakeResource.use) == 1
    assert careless.heard == 1
    assert len(seen.named("checkout")) == len(seen.named("checkin")) == 3
    assert "raised and is dropped" in caplog.text
    assert "careless" in caplog.text


async def test_an_observer_reads_figures_that_agree() -> None:
    """It runs after the change that it is told of, and between two steps of everybody."""
    balanced: list[bool] = []

    class Reader(PoolObserver):
        def checkout(self, pool: str, wait: float) -> None:
            balanced.append(the_pool.stats.balanced)

        def checkin(self, pool: str, used: float, error: BaseException | None) -> None:
            balanced.append(the_pool.stats.balanced)

        def close(self, pool: str, reason: Reason, age: float) -> None:
            balanced.append(the_pool.stats.balanced)

        def timeout(self, pool: str, wait: float) -> None:
            balanced.append(the_pool.stats.balanced)

    async with open_pool(FakeWorker(), max_size=1, observers=[Reader()]) as the_pool, trio.open_nursery() as nursery:
        lease = await the_pool.acquire()
        for _ in range(3):
            nursery.start_soon(the_pool.run, FakeResource.use)
        with pytest.raises(CheckoutTimeout):
            async with the_pool.checkout(timeout=1):
                pass
        lease.remove()
        lease.release()
    assert len(balanced) == 4 + 4 + 2 + 1
    assert all(balanced)


@pytest.mark.parametrize("wrong", [object(), PoolObserver, "log"])
async def test_what_is_no_observer_is_refused(wrong: object) -> None:
    with pytest.raises(TypeError, match="observers must be"):
        async with open_pool(FakeWorker(), observers=cast("list[PoolObserver]", [wrong])):
            raise AssertionError("not reached")


# Off is free


class Census:
    scopes = 0
    tasks = 0


@contextmanager
def census(monkeypatch: pytest.MonkeyPatch) -> Iterator[Census]:
    """Count the cancel scopes that are entered, and the tasks that are started."""
    counted = Census()
    enter = trio.CancelScope.__enter__
    spawn = trio._core._run.Runner.spawn_impl

    def counting_enter(scope: trio.CancelScope) -> trio.CancelScope:
        counted.scopes += 1
        return enter(scope)

    def counting_spawn(*args: Any, **kwargs: Any) -> object:  # noqa: ANN401 - handed on to trio
        counted.tasks += 1
        return spawn(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(trio.CancelScope, "__enter__", counting_enter)
        patch.setattr(trio._core._run.Runner, "spawn_impl", counting_spawn)
        yield counted


async def test_an_uncontended_checkout_opens_no_cancel_scope_and_starts_no_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_pool(FakeWorker()) as pool:
        await pool.wait_ready(1)
        await wait_all_tasks_blocked()
        with census(monkeypatch) as counted:
            for timeout in (1.0, None):
                async with pool.checkout(timeout=timeout) as lease:
                    assert type(lease) is Lease
            async with pool.checkout():
                pass
            with pool.checkout_nowait():
                pass
            (await pool.acquire()).release()
        assert (counted.scopes, counted.tasks) == (0, 0)
        assert pool.stats.direct == 5


async def test_a_waiting_checkout_with_the_default_timeout_opens_none_either(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[int] = []
    async with open_pool(FakeWorker(), max_size=1) as pool, trio.open_nursery() as nursery:
        await pool.wait_ready(1)

        async def client(number: int) -> None:
            async with pool.checkout():
                served.append(number)

        async with pool.checkout() as lease:
            for number in range(5):
                nursery.start_soon(client, number)
            with census(monkeypatch) as counted:
                for _ in range(20):
                    await trio.lowlevel.checkpoint()
                assert pool.stats.waiting == 5
                lease.release()
                for _ in range(20):
                    await trio.lowlevel.checkpoint()
        assert sorted(served) == list(range(5))
        assert (counted.scopes, counted.tasks) == (0, 0)


async def test_a_body_that_can_be_cancelled_costs_a_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the tests above can fail."""
    async with open_pool(FakeWorker(), close_grace=1) as pool:
        await pool.wait_ready(1)
        with census(monkeypatch) as counted:
            async with pool.checkout() as lease:
                assert type(lease) is not Lease
            lease = await pool.acquire()
            lease.remove()
            lease.release()
        assert counted.scopes == 1
        assert counted.tasks == 1, "terminate"


async def test_observers_cost_no_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_pool(FakeWorker(), observers=[PoolObserver()]) as pool:
        await pool.wait_ready(1)
        with census(monkeypatch) as counted:
            async with pool.checkout() as lease:
                assert type(lease) is not Lease
        assert (counted.scopes, counted.tasks) == (0, 0)


async def test_without_observers_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "nimblepool")
    async with open_pool(FakeWorker(), max_size=2) as pool, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(partial(pool.run, FakeResource.use, 1))
    assert caplog.text == ""
