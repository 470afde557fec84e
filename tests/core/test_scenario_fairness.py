"""Bugs that real pools had: unfairness and lost wake-ups."""

from __future__ import annotations

import math
import random
from contextlib import suppress
from statistics import median

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from nimblepool import (
    Backoff,
    CheckoutTimeout,
    Pool,
    ResourceLost,
    Skip,
    Stage,
    Verdict,
    open_pool,
)
from nimblepool.testing import Fail, FakeResource, FakeWorker, Hang, Slow


async def enter(pool: Pool[FakeResource], request: object) -> None:
    async with pool.checkout(request):
        pass


# No barging


async def test_tasks_that_come_back_at_once_are_served_in_rounds() -> None:
    """The releasing task took the resource again before the woken waiter ran (SQLAlchemy #7679, Go #31708)."""
    tasks = 100
    served: list[int] = []
    waits: list[float] = []
    async with open_pool(FakeWorker(), max_size=10, checkout_timeout=None) as pool, trio.open_nursery() as nursery:
        await pool.wait_ready(10)

        async def client(number: int) -> None:
            await trio.sleep(number / 1000)  # so that no two of them ever do anything at the same time
            for _ in range(10):
                asked = trio.current_time()
                async with pool.checkout():
                    served.append(number)
                    waits.append(trio.current_time() - asked)
                    await trio.sleep(1)

        for number in range(tasks):
            nursery.start_soon(client, number)
    steady = slice(tasks, -tasks)
    assert max(waits[steady]) <= 3 * median(waits[steady])
    rounds = served[steady]
    for start in range(len(rounds) - tasks):
        assert len(set(rounds[start : start + tasks])) == tasks, "one was served twice before another once"


async def test_the_longest_wait_is_no_multiple_of_the_usual_one() -> None:
    """Some waited for 3 s and others not at all (SQLAlchemy #7679, Go #31708)."""
    rng = random.Random(12)
    asked: list[object] = []
    served: list[object] = []
    waits: list[float] = []
    async with open_pool(FakeWorker(), max_size=10, checkout_timeout=None) as pool, trio.open_nursery() as nursery:
        await pool.wait_ready(10)

        async def client(number: int) -> None:
            await trio.sleep(number / 1000)
            for _ in range(20):
                visit = object()
                asked.append(visit)
                start = trio.current_time()
                async with pool.checkout():
                    served.append(visit)
                    waits.append(trio.current_time() - start)
                    await trio.sleep(rng.uniform(0.5, 1.5))

        for number in range(100):
            nursery.start_soon(client, number)
    assert served == asked
    steady = waits[100:-100]
    assert max(steady) <= 3 * median(steady)


# Failed opens (see also test_a_failed_open_lets_the_next_waiter_try in test_opening.py)


@pytest.mark.parametrize("failure", [Fail(OSError("refused")), Hang()])
async def test_a_pool_whose_every_open_failed_refills_and_serves_who_waited(failure: object) -> None:
    """A failed open woke nobody: the pool drained to zero and never refilled (HikariCP #1474, deadpool)."""
    worker = FakeWorker()
    served: list[int] = []
    async with open_pool(
        worker, max_size=3, on_open_failure="wait", init_timeout=2, backoff=Backoff(jitter="none"), checkout_timeout=60
    ) as pool:

        async def client(number: int) -> None:
            async with pool.checkout():
                served.append(number)
                await trio.sleep(1)

        await pool.wait_ready(3)
        worker.script("init", *[failure] * 5)
        pool.refresh()
        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(client, number)
                await wait_all_tasks_blocked()
        assert sorted(served[:3]) == [0, 1, 2]
        assert sorted(served[3:]) == [3, 4, 5]
        assert pool.stats.open_failures == 5


# A holder that goes down


@pytest.mark.parametrize("end", ["crash", "cancellation", "death", "desertion"])
@pytest.mark.filterwarnings("ignore:.*never released:ResourceWarning")
async def test_when_the_holder_of_a_lazy_pool_goes_down_its_waiter_gets_another(end: str) -> None:
    """The only holder died, its resource was removed, and nobody opened one for the waiter (NimblePool)."""
    worker = FakeWorker(watched=True)
    worker.always("terminate", Hang())  # the waiter must not have to wait for that either
    deserted: list[object] = []  # not collected: the end of its task is what must be noticed

    async def holder(pool: Pool[FakeResource]) -> None:
        if end == "desertion":
            deserted.append(await pool.acquire())
            await trio.sleep(2)
            return
        with trio.move_on_after(2 if end == "cancellation" else math.inf), suppress(ValueError, ResourceLost):
            async with pool.checkout() as lease:
                await trio.sleep(2)
                if end == "crash":
                    raise ValueError("crashed")
                lease.resource.kill()
                await trio.sleep_forever()

    async with open_pool(worker, max_size=1, on_death="cancel") as pool, trio.open_nursery() as nursery:
        nursery.start_soon(holder, pool)
        await wait_all_tasks_blocked()
        started = trio.current_time()
        assert await pool.run(FakeResource.use) == 2
        assert trio.current_time() - started == pytest.approx(2)


# Gone at the hand-over


@pytest.mark.parametrize("verdict", [Verdict.REMOVE, Verdict.REFRESH, Verdict.RESET])
async def test_a_waiter_whose_resource_went_away_at_the_hand_over_keeps_its_place(verdict: Verdict) -> None:
    """It went to the back of the queue (NimblePool)."""
    worker = FakeWorker()
    served: list[str] = []
    async with open_pool(worker, max_size=1) as pool, trio.open_nursery() as nursery:

        async def client(name: str) -> None:
            async with pool.checkout():
                served.append(name)

        async with pool.checkout():
            for name in ("first", "second", "third"):
                nursery.start_soon(client, name)
                await wait_all_tasks_blocked()
            worker.script("checkout", verdict)
            worker.script("init", Slow(1))
            worker.script("reset", Slow(1))
        assert pool.stats.waiting == 3, "the head was offered the resource, and waits on"
        nursery.start_soon(client, "newcomer")
        await wait_all_tasks_blocked()
        assert served == []
    assert served == ["first", "second", "third", "newcomer"]


async def test_a_waiter_whose_resource_failed_its_ping_keeps_its_place() -> None:
    """The same for a failed ping before the loan (NimblePool)."""
    worker = FakeWorker()
    worker.always("ping", Slow(1, Fail(OSError("dead"))))
    served: list[str] = []
    async with open_pool(worker, max_size=1, ping_after=5) as pool, trio.open_nursery() as nursery:
        await pool.wait_ready(1)
        await trio.sleep(10)

        async def client(name: str) -> None:
            async with pool.checkout() as lease:
                assert lease.resource.number == 2
                served.append(name)

        for name in ("first", "second"):
            nursery.start_soon(client, name)
            await wait_all_tasks_blocked()
    assert served == ["first", "second"]


# Skipped clients


async def test_when_a_waiter_is_skipped_the_next_one_is_served_at_once() -> None:
    """The next waiter stayed unserved beside an idle resource (NimblePool)."""
    worker = FakeWorker()
    outcomes: dict[str, object] = {}
    async with open_pool(worker, max_size=1) as pool, trio.open_nursery() as nursery:

        async def client(name: str) -> None:
            try:
                async with pool.checkout(name) as lease:
                    outcomes[name] = lease.resource.number
            except KeyError as error:
                outcomes[name] = error

        async with pool.checkout():
            for name in ("skipped", "skipped too", "served"):
                nursery.start_soon(client, name)
                await wait_all_tasks_blocked()
            errors = [KeyError(1), KeyError(2)]
            worker.script("checkout", *[Fail(Skip(error)) for error in errors])
        await wait_all_tasks_blocked()
        assert outcomes == {"skipped": errors[0], "skipped too": errors[1], "served": 1}
        assert pool.stats.idle == 1
        assert pool.stats.refused + pool.stats.failed == 2


async def test_a_skipped_newcomer_leaves_the_resource_idle() -> None:
    """The same without a queue (NimblePool)."""
    worker = FakeWorker()
    async with open_pool(worker, max_size=1) as pool:
        await pool.wait_ready(1)
        worker.script("checkout", Fail(Skip(KeyError("skipped"))))
        with pytest.raises(KeyError, match="skipped"):
            await pool.run(FakeResource.use)
        assert await pool.run(FakeResource.use) == 1
        assert pool.stats.direct == 1


@pytest.mark.parametrize("verdicts", [(Fail(KeyError("broken")),), (Verdict.REMOVE, Fail(Skip(KeyError("skipped"))))])
async def test_what_a_refused_newcomer_cost_is_closed_and_replaced_at_once(verdicts: tuple[object, ...]) -> None:
    """A refusal must not leave work behind for whoever comes next."""
    worker = FakeWorker()
    async with open_pool(worker, min_size=2, max_size=2) as pool:
        await pool.wait_ready()
        worker.script("checkout", *verdicts)
        with pytest.raises(KeyError):
            await pool.run(FakeResource.use)
        await wait_all_tasks_blocked()
        assert worker.count("terminate") == 1
        assert worker.count("init") == 3
        assert pool.stats.idle == 2


# Rewritten requests


async def test_a_rewritten_request_is_what_the_worker_sees_when_its_turn_comes() -> None:
    """A request rewritten by ``enqueue`` was lost when it had to wait (NimblePool)."""

    class Judge(FakeWorker):
        def checkout(self, resource: FakeResource, request: object) -> Verdict:
            requests.append(request)
            return Verdict.OK

    requests: list[object] = []
    worker = Judge()
    async with open_pool(worker, max_size=1) as pool:
        await pool.wait_ready(1)
        async with trio.open_nursery() as nursery, pool.checkout("direct"):
            worker.script("enqueue", "rewritten")
            nursery.start_soon(enter, pool, "original")
            await wait_all_tasks_blocked()
    assert requests == ["direct", "rewritten"]
    assert worker.count("enqueue") == 1, "who need not wait does not queue"


async def test_a_rewritten_request_stays_rewritten_for_the_whole_lease() -> None:
    """The worker must recognise a request whichever callback hears of it (NimblePool)."""
    worker = FakeWorker()
    worker.script("enqueue", "rewritten")
    async with open_pool(worker, max_size=1) as pool:
        with trio.move_on_after(1):
            async with pool.checkout("original") as lease:  # waits for the first resource to open
                assert lease.request == "rewritten"
                await trio.sleep(math.inf)
        assert ("cancelled", (Stage.LEASED, "rewritten")) in worker.calls


# Timed-out waiters


async def test_those_who_timed_out_are_gone_from_the_queue() -> None:
    """Timed-out waiters stayed in the queue, and were served first (NimblePool #27)."""
    worker = FakeWorker()
    served: list[str] = []
    async with open_pool(worker, max_size=1, max_waiting=51, checkout_timeout=3) as pool:

        async def impatient(timeout: float) -> None:
            with pytest.raises(CheckoutTimeout):
                async with pool.checkout(timeout=timeout):
                    served.append("a ghost")

        async def patient() -> None:
            async with pool.checkout(timeout=60):
                served.append("patient")

        async with trio.open_nursery() as nursery:
            async with pool.checkout():
                for number in range(50):
                    nursery.start_soon(impatient, 3 if number % 2 else 1 + number / 100)
                await wait_all_tasks_blocked()
                nursery.start_soon(patient)
                await trio.sleep(4)
                assert pool.stats.waiting == 1
                assert pool.stats.timed_out == 50
            await wait_all_tasks_blocked()
        assert served == ["patient"]
        assert pool.stats.idle == 1
        assert worker.count("checkout") == 2, "one for the holder, one for the patient client, none for ghosts"


# A timeout of 0


async def test_a_timeout_of_0_succeeds_when_a_resource_is_idle_and_only_then() -> None:
    """It failed with resources idle (NimblePool)."""
    async with open_pool(FakeWorker(), max_size=2) as pool:
        await pool.wait_ready(2)
        started = trio.current_time()
        async with pool.checkout(timeout=0), pool.checkout(timeout=0):
            with pytest.raises(CheckoutTimeout):
                async with pool.checkout(timeout=0):
                    pass
        async with pool.checkout(timeout=0):
            pass
        assert trio.current_time() == started
        assert pool.stats.direct == 3
        assert pool.stats.timed_out == 1


async def test_a_timeout_of_0_succeeds_when_a_shared_resource_has_room() -> None:
    """Room is as good as idleness (NimblePool)."""
    async with open_pool(FakeWorker(capacity=2), max_size=1) as pool:
        await pool.wait_ready(1)
        async with pool.checkout(timeout=0), pool.checkout(timeout=0):
            with pytest.raises(CheckoutTimeout):
                async with pool.checkout(timeout=0):
                    pass


async def test_polling_with_a_timeout_of_0_gets_a_resource_in_the_end() -> None:
    """The first try opens one, for whoever comes next."""
    worker = FakeWorker()
    worker.always("init", Slow(1))
    async with open_pool(worker) as pool:
        tries = 0
        while True:
            tries += 1
            try:
                async with pool.checkout(timeout=0):
                    break
            except CheckoutTimeout:
                await trio.sleep(0.4)
        assert tries == 4
        assert worker.count("init") == 1
