"""What each callback may answer, and what comes of it."""

from __future__ import annotations

import logging
import math
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from nimblepool import CheckoutTimeout, Pool, PoolClosed, Reason, Skip, Stage, Verdict, open_pool
from nimblepool.testing import Fail, FakeResource, FakeWorker, Hang, Slow


def subjects(worker: FakeWorker, callback: str) -> list[object]:
    """Return what each call of ``callback`` was about."""
    return [subject for name, subject in worker.calls if name == callback]


# checkout


async def test_checkout_says_ok() -> None:
    worker = FakeWorker()
    worker.always("checkout", Verdict.OK)
    async with open_pool(worker) as pool:
        assert [await pool.run(FakeResource.use) for _ in range(3)] == [1, 1, 1]
        assert worker.count("checkout") == 3


async def test_checkout_says_remove_and_the_client_gets_another() -> None:
    worker = FakeWorker()
    worker.script("checkout", Verdict.REMOVE, Verdict.REMOVE)
    async with open_pool(worker, max_size=1) as pool:
        assert await pool.run(FakeResource.use) == 3
        assert [resource.terminated for resource in worker.resources] == [[Reason.REMOVED], [Reason.REMOVED], []]


async def test_checkout_says_refresh_and_all_others_go_too() -> None:
    worker = FakeWorker()
    async with open_pool(worker) as pool:
        await pool.wait_ready(3)
        worker.script("checkout", Verdict.REFRESH)
        assert await pool.run(FakeResource.use) == 4
        assert sorted(resource.terminated[0] for resource in worker.resources[:3]) == sorted(
            [Reason.REMOVED, Reason.REFRESH, Reason.REFRESH]
        )


async def test_checkout_says_reset_and_the_client_gets_it_reset_once_for_each_use() -> None:
    worker = FakeWorker()
    worker.always("checkout", Verdict.RESET)
    worker.always("reset", Slow(1))
    async with open_pool(worker, max_size=1) as pool:
        for uses in (1, 2, 3):
            began = trio.current_time()
            assert await pool.run(FakeResource.use) == 1
            assert trio.current_time() - began == pytest.approx(1)
            assert worker.count("reset") == uses


async def test_a_reset_at_checkin_needs_none_at_checkout() -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_size=1) as pool:
        worker.script("checkin", Verdict.RESET)
        await pool.run(FakeResource.use)
        worker.always("checkout", Verdict.RESET)
        await pool.run(FakeResource.use)
        assert worker.count("reset") == 1


async def test_one_checkout_resets_one_resource() -> None:
    worker = FakeWorker()
    worker.always("checkout", Verdict.RESET)
    async with open_pool(worker) as pool:
        await pool.wait_ready(5)
        await pool.run(FakeResource.use)
        assert worker.count("reset") == 1


async def test_a_failing_reset_before_the_lease_sends_the_client_to_another() -> None:
    worker = FakeWorker()
    worker.script("checkout", Verdict.RESET)
    worker.script("reset", Fail(OSError("no")))
    async with open_pool(worker, max_size=1) as pool:
        assert await pool.run(FakeResource.use) == 2
        assert worker.resources[0].terminated == [Reason.RESET]


@pytest.mark.parametrize("queued", [False, True])
async def test_skip_gives_the_client_its_error_and_keeps_the_resource(*, queued: bool) -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_size=1) as pool:
        if not queued:
            await pool.wait_ready(1)
        error = KeyError("no such database")
        worker.script("checkout", Fail(Skip(error)))
        with pytest.raises(KeyError) as caught:
            await pool.run(FakeResource.use)
        assert caught.value is error
        assert await pool.run(FakeResource.use) == 1
        assert (pool.stats.refused, pool.stats.failed) == (1, 0)


async def test_skip_serves_the_next_waiter() -> None:
    worker = FakeWorker()
    outcomes: list[object] = []
    async with open_pool(worker, max_size=1) as pool, trio.open_nursery() as nursery:

        async def client() -> None:
            try:
                outcomes.append(await pool.run(FakeResource.use))
            except KeyError as error:
                outcomes.append(error.args[0])

        async with pool.checkout():
            for _ in range(3):
                nursery.start_soon(client)
            await wait_all_tasks_blocked()
            worker.script("checkout", Fail(Skip(KeyError("skipped"))))
    assert outcomes == ["skipped", 1, 1]


async def test_skip_does_not_change_whose_turn_it_is() -> None:
    worker = FakeWorker()
    async with open_pool(worker, order="fifo") as pool:
        await pool.wait_ready(2)
        worker.script("checkout", Fail(Skip(KeyError("skipped"))))
        with pytest.raises(KeyError):
            await pool.run(FakeResource.use)
        refused, served = subjects(worker, "checkout")[0], await pool.run(FakeResource.use)
        assert isinstance(refused, FakeResource)
        assert served == refused.number


@pytest.mark.parametrize("queued", [False, True])
async def test_checkout_raises_and_the_resource_is_removed_at_once(*, queued: bool) -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_size=1) as pool:
        if not queued:
            await pool.wait_ready(1)
        error = OSError("broken")
        worker.script("checkout", Fail(error))
        with pytest.raises(OSError, match="broken") as caught:
            await pool.run(FakeResource.use)
        assert caught.value is error
        await wait_all_tasks_blocked()
        assert worker.resources[0].terminated == [Reason.FAILED]
        assert pool.stats.failed == 1
        assert await pool.run(FakeResource.use) == 2


async def test_checkout_raises_for_checkout_nowait_too() -> None:
    worker = FakeWorker()
    async with open_pool(worker) as pool:
        await pool.wait_ready(1)
        worker.script("checkout", Fail(OSError("broken")))
        with pytest.raises(OSError, match="broken"), pool.checkout_nowait():
            raise AssertionError("not reached")
        await wait_all_tasks_blocked()
        assert worker.resources[0].terminated == [Reason.FAILED]


@pytest.mark.parametrize("queued", [False, True])
async def test_nonsense_from_checkout_is_a_clear_error(*, queued: bool) -> None:
    worker = FakeWorker()
    async with open_pool(worker) as pool:
        if not queued:
            await pool.wait_ready(1)
        worker.script("checkout", True)
        text = r"FakeWorker.checkout returned True; it must return a nimblepool.Verdict"
        with pytest.raises(TypeError, match=text):
            await pool.run(FakeResource.use)
        assert await pool.run(FakeResource.use) == 2


async def test_checkout_hears_the_request() -> None:
    requests: list[object] = []

    class Noting(FakeWorker):
        def checkout(self, resource: FakeResource, request: object) -> Verdict:
            requests.append(request)
            return Verdict.OK

    async with open_pool(Noting()) as pool:
        async with pool.checkout("queued"):
            pass
        async with pool.checkout("direct"):
            pass
        with pool.checkout_nowait("prompt"):
            pass
        (await pool.acquire("acquired")).release()
    assert requests == ["queued", "direct", "prompt", "acquired"]


# checkin


async def test_checkin_hears_how_the_body_ended() -> None:
    errors: list[object] = []

    class Noting(FakeWorker):
        def checkin(self, resource: FakeResource, error: BaseException | None) -> Verdict:
            errors.append(error)
            return Verdict.OK

    mine = ValueError("mine")
    async with open_pool(Noting()) as pool:
        await pool.run(FakeResource.use)
        with pytest.raises(ValueError, match="mine"):
            async with pool.checkout():
                raise mine
        with trio.move_on_after(1):
            await pool.run(FakeResource.use, math.inf)
        assert errors[:2] == [None, mine]
        assert isinstance(errors[2], trio.Cancelled)
        assert pool.stats.lost == 0, "a worker may vouch for its resource"


async def test_checkin_says_remove() -> None:
    worker = FakeWorker()
    worker.script("checkin", Verdict.REMOVE)
    async with open_pool(worker) as pool:
        await pool.run(FakeResource.use)
        await wait_all_tasks_blocked()
        assert worker.resources[0].terminated == [Reason.REMOVED]


async def test_checkin_says_reset_the_client_goes_on_and_the_next_waits_for_the_reset() -> None:
    worker = FakeWorker()
    worker.script("checkin", Verdict.RESET)
    worker.script("reset", Slow(3))
    async with open_pool(worker, max_size=1) as pool, trio.open_nursery() as nursery:
        served: list[float] = []

        async def client() -> None:
            async with pool.checkout():
                served.append(trio.current_time())

        async with pool.checkout():
            nursery.start_soon(client)
            await wait_all_tasks_blocked()
        left = trio.current_time()
        assert pool.stats.checking == 1
        await trio.sleep(2.9)
        assert not served
        await trio.sleep(0.2)
        assert served == [pytest.approx(left + 3)]
        assert worker.count("init") == 1


async def test_checkin_says_refresh_and_everything_opened_before_goes() -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_size=4) as pool, trio.open_nursery() as nursery:
        await pool.wait_ready(2)
        worker.script("init", Slow(10))
        async with pool.checkout() as lease, pool.checkout() as other:
            nursery.start_soon(partial(pool.run, FakeResource.use))
            await wait_all_tasks_blocked()
            assert pool.stats.opening == 1
            worker.script("checkin", Verdict.REFRESH)
            lease.release()
            await wait_all_tasks_blocked()
            assert other.resource.is_open, "at its checkin"
            assert pool.stats.waited == 1, "the opening one was stopped, and another opened for who waited"
        await wait_all_tasks_blocked()
        assert {reason for one in worker.resources[:2] for reason in one.terminated} == {Reason.REMOVED, Reason.REFRESH}
        assert await pool.run(FakeResource.use) == 3


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (Fail(OSError("careless")), "careless"),
        ("nonsense", "FakeWorker.checkin returned 'nonsense'; it must return a nimblepool.Verdict"),
    ],
)
async def test_a_bad_checkin_costs_the_resource_and_spares_the_client(
    step: object, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = FakeWorker()
    worker.script("checkin", step)
    async with open_pool(worker) as pool:
        await pool.run(FakeResource.use)
        assert await pool.run(FakeResource.use) == 2
    assert worker.resources[0].terminated == [Reason.REMOVED]
    assert "FakeWorker.checkin failed; the resource is removed" in caplog.text
    assert text in caplog.text


# message


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (Fail(OSError("careless")), "careless"),
        ("nonsense", "FakeWorker.message returned 'nonsense'; it must return a nimblepool.Verdict"),
    ],
)
async def test_a_bad_message_costs_one_resource(step: object, text: str, caplog: pytest.LogCaptureFixture) -> None:
    worker = FakeWorker()
    async with open_pool(worker) as pool:
        await pool.wait_ready(3)
        worker.script("message", Verdict.OK, step)
        pool.broadcast("news")
        await wait_all_tasks_blocked()
        assert pool.stats.idle == 2
    assert text in caplog.text


# enqueue and cancelled


async def test_enqueue_rewrites_the_request_of_who_waits() -> None:
    worker = FakeWorker()
    requests: list[object] = []

    class Noting(FakeWorker):
        def checkout(self, resource: FakeResource, request: object) -> Verdict:
            requests.append(request)
            return Verdict.OK

    worker = Noting()
    worker.script("enqueue", "rewritten")
    async with open_pool(worker) as pool:
        async with pool.checkout("original"):
            pass
        async with pool.checkout("direct"):
            pass
        assert requests == ["rewritten", "direct"]
        assert subjects(worker, "enqueue") == ["original"]


async def test_enqueue_refuses_the_client() -> None:
    worker = FakeWorker()
    error = PermissionError("no")
    worker.script("enqueue", Fail(error))
    async with open_pool(worker) as pool:
        with pytest.raises(PermissionError) as caught:
            await pool.run(FakeResource.use)
        assert caught.value is error
        assert (pool.stats.refused, pool.stats.waiting, worker.count("init")) == (1, 0, 0)
        assert await pool.run(FakeResource.use) == 1


async def test_cancelled_hears_who_gave_up_where() -> None:
    worker = FakeWorker()
    worker.always("enqueue", "rewritten")
    async with open_pool(worker, max_size=1) as pool:
        async with pool.checkout():
            with trio.move_on_after(1):
                async with pool.checkout("cancelled"):
                    pass
            with pytest.raises(CheckoutTimeout):
                async with pool.checkout("timed out", timeout=1):
                    pass
            assert subjects(worker, "cancelled") == [(Stage.QUEUED, "rewritten")] * 2
        with trio.move_on_after(1):
            async with pool.checkout("while leased"):
                await trio.sleep(math.inf)
        assert subjects(worker, "cancelled")[2:] == [(Stage.LEASED, "while leased")]


async def test_cancelled_hears_of_a_body_whose_nursery_was_cancelled() -> None:
    worker = FakeWorker()
    async with open_pool(worker) as pool:
        with trio.move_on_after(1):
            async with pool.checkout("mine"), trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep, math.inf)
                nursery.start_soon(trio.sleep, math.inf)
        assert subjects(worker, "cancelled") == [(Stage.LEASED, "mine")]


async def test_cancelled_hears_of_no_other_end() -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_size=1) as pool, trio.open_nursery() as nursery:
        await pool.run(FakeResource.use)
        with pytest.raises(ValueError, match="mine"):
            async with pool.checkout():
                raise ValueError("mine")

        async def client() -> None:
            with pytest.raises(PoolClosed):
                await pool.run(FakeResource.use)

        lease = await pool.acquire()
        nursery.start_soon(client)
        await wait_all_tasks_blocked()
        nursery.start_soon(pool.close)
        await wait_all_tasks_blocked()
        lease.release()
    assert worker.count("cancelled") == 0


async def test_a_raising_cancelled_disturbs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    worker = FakeWorker()
    worker.always("cancelled", Fail(OSError("careless")))
    async with open_pool(worker, max_size=1) as pool:
        async with pool.checkout():
            with trio.move_on_after(1) as scope:
                await pool.run(FakeResource.use)
            assert scope.cancelled_caught
            with pytest.raises(CheckoutTimeout):
                async with pool.checkout(timeout=1):
                    pass
        assert await pool.run(FakeResource.use) == 1
    assert caplog.text.count("FakeWorker.cancelled failed") == 2


# start and stop


async def test_start_comes_first_and_stop_last_and_both_once() -> None:
    worker = FakeWorker()
    worker.always("start", Slow(1))
    worker.always("terminate", Slow(1))
    worker.always("stop", Slow(1))
    async with open_pool(worker, min_size=2) as pool:
        await pool.wait_ready()
    names = [name for name, _ in worker.calls]
    assert names == ["start", "init", "init", "terminate", "terminate", "stop"]


@pytest.mark.parametrize(
    ("step", "text"),
    [(Hang(), "FakeWorker.stop took longer than 4 s"), (Fail(OSError("careless")), "FakeWorker.stop failed")],
)
async def test_a_bad_stop_is_reported_and_abandoned(step: object, text: str, caplog: pytest.LogCaptureFixture) -> None:
    worker = FakeWorker()
    worker.script("stop", step)
    async with open_pool(worker, terminate_timeout=4) as pool:
        await pool.wait_ready(1)
        began = trio.current_time()
    assert trio.current_time() - began <= 4.001
    assert text in caplog.text


# Deadlines


@pytest.mark.parametrize(
    ("callback", "timeout", "reason"),
    [("ping", 3.0, Reason.PING), ("reset", 2.0, Reason.RESET)],
)
async def test_what_hangs_is_cut_off_and_costs_its_resource(callback: str, timeout: float, reason: Reason) -> None:
    worker = FakeWorker()
    worker.script(callback, Hang())
    async with open_pool(worker, max_size=2, ping_after=1, ping_timeout=3, reset_timeout=2) as pool:
        await pool.wait_ready(2)
        if callback == "reset":
            worker.script("checkin", Verdict.RESET)
            await pool.run(FakeResource.use)
        else:
            await trio.sleep(1.1)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(partial(pool.run, FakeResource.use, 1))
        assert trio.current_time() - began <= timeout + 1.001
        await trio.sleep(timeout)
        assert [reason for one in worker.resources for reason in one.terminated] == [reason]
        assert pool.stats.lost == 1


@pytest.mark.parametrize("callback", ["init", "ping", "reset", "terminate"])
async def test_the_deadline_of_a_callback_is_its_own(callback: str) -> None:
    """One second less than the deadline is in time."""
    worker = FakeWorker()
    worker.always(callback, Slow(6))
    worker.script("checkin", Verdict.RESET)
    async with open_pool(
        worker, ping_every=100, init_timeout=7, ping_timeout=7, reset_timeout=7, terminate_timeout=7
    ) as pool:
        async with pool.checkout(timeout=10):
            pass
        await trio.sleep(120)
        assert await pool.run(FakeResource.use) == 1
    assert pool.stats.lost == pool.stats.open_failures == 0


async def test_a_callback_that_swallows_its_cancellation_is_waited_for_and_judged_late() -> None:
    """The pool cannot kill it: its resource stays out of the rack until it ends, and is closed then."""

    class Stubborn(FakeWorker):
        async def ping(self, resource: FakeResource) -> None:
            with trio.CancelScope(shield=True):
                await trio.sleep(20)
            await trio.lowlevel.checkpoint()

    worker = Stubborn()
    async with open_pool(worker, max_size=1, ping_every=10, ping_timeout=1) as pool:
        await pool.wait_ready(1)
        await trio.sleep(15)
        with pytest.raises(CheckoutTimeout, match="checking 1"):
            await pool.run(FakeResource.use)
        async with pool.checkout(timeout=60) as lease:
            assert lease.resource.number == 2
        assert worker.resources[0].terminated == [Reason.PING]


async def test_a_hanging_init_costs_nobody_who_can_be_served_otherwise() -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_size=2, init_timeout=3) as pool:
        await pool.wait_ready(1)
        worker.script("init", Hang())
        numbers: list[int] = []

        async def client() -> None:
            numbers.append(await pool.run(FakeResource.use))

        async with trio.open_nursery() as nursery, pool.checkout():
            nursery.start_soon(client)  # asks for another, which hangs
            await trio.sleep(2)
        assert numbers == [1]
        await trio.sleep(2)
        assert pool.stats.open_failures == 1
        assert pool.stats.failed == 0


# ping


class PingWorker(FakeWorker):
    """Notes when which resource was pinged."""

    def __init__(self) -> None:
        super().__init__()
        self.pings: list[tuple[float, int]] = []

    async def ping(self, resource: FakeResource) -> None:
        self.pings.append((trio.current_time(), resource.number))
        await super().ping(resource)


async def idle_since(pool: Pool[FakeResource], seconds: list[float]) -> None:
    """Use resources 1, 2, 3, ... so that the first has been idle for ``seconds[0]`` afterwards, and so on."""
    leases = [await pool.acquire() for _ in seconds]
    leases.sort(key=lambda lease: lease.resource.number)
    for lease, ahead, behind in zip(leases, seconds, [*seconds[1:], 0], strict=True):
        lease.release()
        await trio.sleep(ahead - behind)


async def test_idle_resources_are_pinged_every_so_often_the_longest_idle_first() -> None:
    worker = PingWorker()
    async with open_pool(worker, ping_every=10, ping_batch=1) as pool:
        await idle_since(pool, [6, 3, 0])
        began = trio.current_time()
        await trio.sleep(11)
        assert [(when - began, number) for when, number in worker.pings] == [
            pytest.approx((4, 1)),
            pytest.approx((7, 2)),
            pytest.approx((10, 3)),
        ]


async def test_what_is_used_is_not_pinged() -> None:
    worker = PingWorker()
    async with open_pool(worker, ping_every=10) as pool:
        await pool.wait_ready(2)
        for _ in range(20):
            await trio.sleep(4)
            await pool.run(FakeResource.use)
        pinged = {number for _, number in worker.pings}
        assert len(pinged) == 1
        assert 6 <= len(worker.pings) <= 9


async def test_at_most_ping_batch_pings_run_at_a_time() -> None:
    worker = FakeWorker()
    worker.always("ping", Slow(1))
    async with open_pool(worker, max_size=10, ping_every=20, ping_batch=3) as pool:
        await pool.wait_ready(10)
        most = 0
        for _ in range(50):
            most = max(most, pool.stats.checking)
            await trio.sleep(0.5)
        assert most == 3
        assert worker.count("ping") == 10


async def test_a_failed_ping_removes_the_resource_and_min_size_replaces_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nimblepool")
    worker = FakeWorker()
    async with open_pool(worker, min_size=1, ping_every=10) as pool:
        await pool.wait_ready()
        await pool.run(FakeResource.use)
        worker.resources[0].kill()
        await trio.sleep(11)
        assert worker.resources[0].terminated == [Reason.PING]
        assert await pool.run(FakeResource.use) == 2
    assert "ping failed" in caplog.text


async def test_what_was_idle_for_long_is_pinged_before_it_is_lent() -> None:
    worker = FakeWorker()
    worker.always("ping", Slow(1))
    async with open_pool(worker, ping_after=10) as pool:
        await pool.run(FakeResource.use)
        await trio.sleep(9.9)
        assert await pool.run(FakeResource.use) == 1
        assert worker.count("ping") == 0
        await trio.sleep(10.1)
        began = trio.current_time()
        assert await pool.run(FakeResource.use) == 1
        assert trio.current_time() - began == pytest.approx(1)
        assert worker.count("ping") == 1


async def test_a_client_whose_resource_turns_out_dead_keeps_its_place() -> None:
    worker = FakeWorker()
    worker.always("ping", Slow(1))
    order: list[str] = []
    async with open_pool(worker, max_size=1, ping_after=10) as pool, trio.open_nursery() as nursery:
        await pool.run(FakeResource.use)
        await trio.sleep(10.1)
        worker.resources[0].kill()

        async def client(name: str) -> None:
            async with pool.checkout() as lease:
                order.append(f"{name} got {lease.resource.number}")

        for name in ("first", "second"):
            nursery.start_soon(client, name)
            await wait_all_tasks_blocked()
    assert order == ["first got 2", "second got 2"]


async def test_one_checkout_pings_one_resource() -> None:
    worker = FakeWorker()
    async with open_pool(worker, ping_after=10) as pool:
        await pool.wait_ready(5)
        await trio.sleep(10.1)
        await pool.run(FakeResource.use)
        assert worker.count("ping") == 1


async def test_with_ping_after_0_each_checkout_pings_once() -> None:
    worker = FakeWorker()
    worker.always("ping", Slow(0.1))
    async with open_pool(worker, max_size=1, ping_after=0) as pool:
        await pool.run(FakeResource.use)
        before = worker.count("ping")
        assert before <= 1, "it was opened just now"
        for more in (1, 2, 3):
            await trio.sleep(1)
            await pool.run(FakeResource.use)
            assert worker.count("ping") == before + more


async def test_a_timeout_covers_the_ping() -> None:
    worker = FakeWorker()
    worker.always("ping", Slow(3))
    async with open_pool(worker, max_size=1, ping_after=10) as pool:
        await pool.wait_ready(1)
        await trio.sleep(10.1)
        began = trio.current_time()
        with pytest.raises(CheckoutTimeout, match="checking 1"):
            async with pool.checkout(timeout=2):
                pass
        assert trio.current_time() - began == pytest.approx(2)
        await trio.sleep(2)
        async with pool.checkout(timeout=0):
            pass


async def test_pings_count_neither_as_use_nor_as_youth() -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_idle=50, ping_every=10, max_uses=4) as pool:
        await pool.wait_ready(1)
        await trio.sleep(49)
        assert worker.count("ping") == 4
        assert pool.stats.size == 1
        await trio.sleep(2)
        assert worker.resources[0].terminated == [Reason.IDLE]


async def test_messages_count_neither_as_use_nor_as_youth() -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_idle=50, max_uses=4) as pool:
        await pool.wait_ready(1)
        for _ in range(6):
            await trio.sleep(8)
            pool.broadcast("still there?")
        assert pool.stats.size == 1
        await trio.sleep(3)
        assert worker.resources[0].terminated == [Reason.IDLE]


async def test_a_subclass_may_add_a_callback_to_the_instance() -> None:
    """A worker whose callback is set on the instance is heard like any other."""
    worker = FakeWorker()
    heard: list[object] = []

    def checkin(resource: FakeResource, error: BaseException | None) -> Verdict:
        heard.append(error)
        return Verdict.OK

    worker.checkin = checkin  # type: ignore[method-assign]
    async with open_pool(worker) as pool:
        await pool.run(FakeResource.use)
    assert heard == [None]


async def test_a_generation_that_was_retired_does_not_retire_the_next_one() -> None:
    worker = FakeWorker()
    async with open_pool(worker, max_size=3) as pool:
        first, second = await pool.acquire(), await pool.acquire()
        worker.script("checkin", Verdict.REFRESH)
        first.release()
        third = await pool.acquire()
        third.release()
        worker.script("checkin", Verdict.REFRESH)
        second.release()
        assert pool.stats.idle == 1, "the new one was retired, too"
