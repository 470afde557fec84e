"""`check_worker` passes good workers, and names the rule that a bad one breaks."""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, cast

import pytest
import trio

from nimblepool import PoolWorker, Reason, Skip, Stage, Verdict
from nimblepool.testing import Fail, FakeResource, FakeWorker, Hang, Slow, check_worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Minimal(PoolWorker[object]):
    """Overrides only what must be."""

    async def init(self) -> object:
        return object()


class Streams(PoolWorker[trio.SocketStream]):
    """Real resources: TCP streams to an echo server."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.opened = 0
        self.closed = 0

    async def init(self) -> trio.SocketStream:
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        try:
            await exchange(stream)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        self.opened += 1
        return stream

    async def terminate(self, resource: trio.SocketStream, reason: Reason) -> None:
        self.closed += 1
        await resource.aclose()

    async def ping(self, resource: trio.SocketStream) -> None:
        await exchange(resource)


async def exchange(stream: trio.SocketStream) -> None:
    await stream.send_all(b"?")
    assert await stream.receive_some(1) == b"?"


async def echo(stream: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError):  # a client whose init is cancelled goes without a word
        async for data in stream:
            await stream.send_all(data)


@pytest.mark.parametrize(
    "make",
    [Minimal, FakeWorker, lambda: FakeWorker(capacity=3), lambda: FakeWorker(watched=True)],
    ids=["minimal", "fake", "shared", "watched"],
)
async def test_passes_good_workers(make: Callable[[], PoolWorker[Any]]) -> None:
    await check_worker(make(), request="a request")


async def test_uses_every_callback_and_leaves_nothing_open() -> None:
    worker = FakeWorker(capacity=2, watched=True)
    await check_worker(worker)
    callbacks = {"start", "init", "checkout", "checkin", "enqueue", "cancelled", "reset", "ping", "watch", "capacity"}
    assert {name for name, _ in worker.calls} == callbacks | {"message", "terminate", "stop"}
    assert (worker.count("start"), worker.count("stop")) == (1, 1)
    assert (worker.calls[0], worker.calls[-1]) == (("start", None), ("stop", None))
    assert len(worker.resources) > 10
    assert all(len(resource.terminated) == 1 for resource in worker.resources)
    reasons = {reason for resource in worker.resources for reason in resource.terminated}
    assert {Reason.PING, Reason.RESET, Reason.REMOVED, Reason.CLOSED} <= reasons


async def test_more_cycles_check_more() -> None:
    few, many = FakeWorker(), FakeWorker()
    await check_worker(few, cycles=1)
    await check_worker(many, cycles=5)
    assert many.count("checkin") > few.count("checkin")
    with pytest.raises(ValueError, match="cycles must be 1 or more"):
        await check_worker(FakeWorker(), cycles=0)


async def test_passes_a_worker_of_real_streams() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, echo, listeners)
        worker = Streams(listeners[0].socket.getsockname()[1])
        await check_worker(worker)
        assert worker.opened == worker.closed > 10
        nursery.cancel_scope.cancel()


async def test_cancelling_it_closes_what_was_opened() -> None:
    worker = FakeWorker()
    worker.always("ping", Slow(3))
    with trio.move_on_after(1) as scope:
        await check_worker(worker)
    assert scope.cancelled_caught
    assert worker.resources
    assert all(len(resource.terminated) == 1 for resource in worker.resources)


async def refuted(worker: PoolWorker[Any], request: object = None) -> str:
    """Check a bad worker, and return the complaint without the worker's name."""
    with pytest.raises(AssertionError) as caught:
        await check_worker(worker, request=request)
    name, _, complaint = str(caught.value).partition(".")
    assert name == type(worker).__name__
    return complaint


CLOSES = "it must close any resource that init returned, also one that is broken (reason: pool closed)"
REFUSES = (
    "refused the request 'a request' with KeyError('who'); pass one that it accepts: check_worker(worker, request=...)"
)

BAD_STEPS: list[tuple[str, object, str]] = [
    ("init", Fail(OSError("refused")), "init raised OSError('refused'); let it open one resource"),
    ("init", Hang(), "init took longer than 30 s, its default deadline; let it open one resource"),
    ("ping", Fail(OSError("lost")), "ping raised OSError('lost'); it must succeed on a fresh resource"),
    (
        "ping",
        Fail(AssertionError("my own")),
        "ping raised AssertionError('my own'); it must succeed on a fresh resource",
    ),
    ("ping", Slow(6), "ping took longer than 5 s, its default deadline; it must succeed on a fresh resource"),
    ("reset", Fail(OSError("lost")), "reset raised OSError('lost'); it must succeed on a fresh resource"),
    ("reset", Hang(), "reset took longer than 5 s, its default deadline; it must succeed on a fresh resource"),
    (
        "terminate",
        Fail(OSError("lost")),
        f"terminate raised OSError('lost'); {CLOSES}",
    ),
    (
        "terminate",
        Hang(),
        f"terminate took longer than 5 s, its default deadline; {CLOSES}",
    ),
    ("checkout", "yes", "checkout returned 'yes'; return a nimblepool.Verdict"),
    (
        "checkout",
        Verdict.REMOVE,
        "checkout returned Verdict.REMOVE for a fresh resource; no client would ever be served: return OK",
    ),
    (
        "checkout",
        Fail(KeyError("who")),
        "checkout raised KeyError('who'); that costs a resource: catch it, and return an answer",
    ),
    (
        "checkout",
        Fail(Skip(KeyError("who"))),
        f"checkout {REFUSES}",
    ),
    ("checkin", "yes", "checkin returned 'yes'; return a nimblepool.Verdict"),
    (
        "checkin",
        Fail(KeyError("who")),
        "checkin raised KeyError('who'); that costs a resource: catch it, and return an answer",
    ),
    ("message", "yes", "message returned 'yes'; return a nimblepool.Verdict"),
    ("capacity", -1, "capacity returned -1; return how many leases it carries, an int >= 0"),
    ("capacity", True, "capacity returned True; return how many leases it carries, an int >= 0"),
    ("capacity", 1.5, "capacity returned 1.5; return how many leases it carries, an int >= 0"),
    ("capacity", 0, "capacity returned 0 for a fresh resource; no client would be served: return 1 or more"),
    ("watch", Fail(OSError("lost")), "watch raised OSError('lost') at once; that says the resource is dead: live as"),
    (
        "enqueue",
        Fail(KeyError("who")),
        f"enqueue {REFUSES}",
    ),
    (
        "cancelled",
        Fail(OSError("deaf")),
        "cancelled raised OSError('deaf') in a pool; it hears of a client that gave up, and has nothing to refuse",
    ),
    ("stop", Fail(OSError("lost")), "stop raised OSError('lost') in a pool; it must succeed after the last terminate"),
    ("stop", Hang(), "stop took longer than 5 s in a pool; it must succeed after the last terminate"),
]


@pytest.mark.parametrize(("callback", "step", "complaint"), BAD_STEPS, ids=lambda value: str(value)[:40])
async def test_catches_a_callback_that_goes_wrong(callback: str, step: object, complaint: str) -> None:
    worker = FakeWorker(capacity=1, watched=True)
    worker.always(callback, step)
    assert (await refuted(worker, "a request")).startswith(complaint)
    assert all(len(resource.terminated) == 1 for resource in worker.resources)


async def test_lets_message_raise_for_a_message_that_it_does_not_know() -> None:
    worker = FakeWorker()
    for error in (KeyError("unknown"), AssertionError("unknown")):
        worker.always("message", Fail(error))
        await check_worker(worker)


async def test_what_start_raises_comes_out() -> None:
    worker = FakeWorker()
    worker.always("start", Fail(OSError("no network")))
    with pytest.raises(OSError, match="no network"):
        await check_worker(worker)


async def test_catches_an_init_that_returns_nothing() -> None:
    class Forgetful(Minimal):
        async def init(self) -> object:
            return None

    assert await refuted(Forgetful()) == "init returned None; return what it opened"


async def test_catches_an_init_that_returns_the_same_resource_twice() -> None:
    class Sharing(Minimal):
        async def init(self) -> object:
            return self

    complaint = "init returned the same object twice; two clients would share it: return a new one every time"
    assert await refuted(Sharing()) == complaint


async def test_catches_an_init_that_returns_later_what_is_in_use() -> None:
    class Tired(Minimal):
        tired = False

        async def init(self) -> object:
            return self if self.tired else object()

        def cancelled(self, stage: Stage, request: object) -> None:
            self.tired = True

    assert await refuted(Tired()) == "init returned what is in use; return a new resource every time"


async def test_catches_an_init_that_replaces_a_cancellation() -> None:
    class Swallowing(Minimal):
        async def init(self) -> object:
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled:
                raise OSError("interrupted") from None
            return object()

    complaint = "init raised OSError('interrupted') when it was cancelled; let trio.Cancelled pass, and clean up"
    assert (await refuted(Swallowing())).startswith(complaint)


async def test_catches_an_init_that_leaks_when_it_is_cancelled(tmp_path: Path) -> None:
    class Leaking(PoolWorker[IO[str]]):
        async def init(self) -> IO[str]:
            opened = (tmp_path / "file").open("w")
            await trio.lowlevel.checkpoint()
            return opened

        async def terminate(self, resource: IO[str], reason: Reason) -> None:
            resource.close()

    complaint = await refuted(Leaking())
    assert complaint.startswith("init left something open when it was cancelled: unclosed file")
    assert "close what it has opened so far" in complaint


async def test_passes_on_the_warnings_that_are_not_about_leaks() -> None:
    class Noisy(Minimal):
        async def init(self) -> object:
            warnings.warn("old", UserWarning, stacklevel=1)
            return object()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        await check_worker(Noisy())
    assert {str(warning.message) for warning in caught} == {"old"}


@pytest.mark.parametrize("callback", ["checkout", "checkin", "message", "capacity", "enqueue"])
async def test_catches_a_deciding_callback_that_is_a_coroutine(callback: str) -> None:
    async def decide(*_: object) -> Verdict:
        await trio.lowlevel.checkpoint()
        return Verdict.OK

    worker = FakeWorker(capacity=1)
    setattr(worker, callback, decide)
    assert await refuted(worker) == f"{callback} returned an awaitable; write it as a plain function, 'def'"


@pytest.mark.parametrize("callback", ["init", "terminate", "ping", "reset"])
async def test_catches_an_asynchronous_callback_that_is_a_plain_function(callback: str) -> None:
    worker = FakeWorker()
    if callback == "terminate":

        def terminate(resource: FakeResource, reason: Reason) -> None:
            resource.terminated.append(reason)

        worker.terminate = cast("Any", terminate)  # type: ignore[method-assign]
    else:
        setattr(worker, callback, lambda *_: FakeResource(1))
    assert await refuted(worker) == f"{callback} is a plain function; write it as 'async def'"


@pytest.mark.parametrize("callback", ["checkout", "checkin", "capacity", "message", "enqueue"])
async def test_catches_a_deciding_callback_that_blocks(callback: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("nimblepool._conformance.perf_counter", lambda: now)
    worker = FakeWorker(capacity=1)
    decide = getattr(worker, callback)

    def blocking(*arguments: object) -> object:
        nonlocal now
        now += 0.2
        return decide(*arguments)

    setattr(worker, callback, blocking)
    complaint = f"{callback} blocks: it took 0.2 s at its fastest, in which no other task can run; move what waits"
    assert (await refuted(worker)).startswith(complaint)


async def test_does_not_take_one_slow_call_for_blocking(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("nimblepool._conformance.perf_counter", lambda: now)

    class OnceSlow(FakeWorker):
        def checkout(self, resource: FakeResource, request: object) -> Verdict:
            nonlocal now
            now += 0.2 if resource.number < 30 and not now else 0.0
            return super().checkout(resource, request)

    await check_worker(OnceSlow())
    assert now == 0.2


async def test_catches_a_terminate_that_fails_on_what_was_used() -> None:
    class Picky(FakeWorker):
        def __init__(self) -> None:
            super().__init__()
            self.used: set[FakeResource] = set()

        def cancelled(self, stage: Stage, request: object) -> None:
            if stage is Stage.LEASED:
                self.used.update(self.open_now)

        async def terminate(self, resource: FakeResource, reason: Reason) -> None:
            await super().terminate(resource, reason)
            if resource in self.used:
                raise OSError("busy")

    complaint = "terminate raised OSError('busy') in a pool; it must close a resource that was used (reason: "
    assert (await refuted(Picky())).startswith(complaint)


async def test_catches_a_terminate_that_hangs_on_what_failed_its_ping() -> None:
    class Stubborn(FakeWorker):
        async def terminate(self, resource: FakeResource, reason: Reason) -> None:
            await super().terminate(resource, reason)
            if reason is Reason.PING and self.count("cancelled"):
                await trio.sleep_forever()

    complaint = "terminate took longer than 5 s in a pool; it must close a resource that was used (reason: ping failed)"
    assert await refuted(Stubborn()) == complaint


async def test_catches_a_terminate_that_fails_when_a_ping_was_cut_short() -> None:
    class Busy(FakeWorker):
        def __init__(self) -> None:
            super().__init__()
            self.pinging: set[FakeResource] = set()

        async def ping(self, resource: FakeResource) -> None:
            self.pinging.add(resource)
            await super().ping(resource)
            self.pinging.remove(resource)

        async def terminate(self, resource: FakeResource, reason: Reason) -> None:
            await super().terminate(resource, reason)
            if resource in self.pinging:
                raise OSError("busy")

    complaint = "terminate raised OSError('busy'); it must close any resource that init returned, also one that is"
    assert (await refuted(Busy())).startswith(complaint)


async def test_lets_a_ping_that_was_cut_short_raise() -> None:
    class Clumsy(FakeWorker):
        clumsy = 0

        async def ping(self, resource: FakeResource) -> None:
            try:
                await super().ping(resource)
            except trio.Cancelled:
                self.clumsy += 1
                raise OSError("cut short") from None

    worker = Clumsy()
    await check_worker(worker)
    assert worker.clumsy == 1


async def test_catches_a_reset_that_fails_after_a_use() -> None:
    class Once(FakeWorker):
        async def reset(self, resource: FakeResource) -> None:
            await super().reset(resource)
            if self.count("cancelled"):
                raise OSError("lost")

    complaint = "reset raised OSError('lost') in a pool; it must succeed after a use that ended well"
    assert await refuted(Once()) == complaint


async def test_catches_a_ping_that_fails_after_a_use() -> None:
    class Once(FakeWorker):
        async def ping(self, resource: FakeResource) -> None:
            await super().ping(resource)
            if self.count("cancelled"):
                raise OSError("lost")

    complaint = "ping raised OSError('lost') in a pool; it must succeed on a resource that is not dead"
    assert await refuted(Once()) == complaint


async def test_catches_a_watch_that_returns_at_once() -> None:
    class Idle(Minimal):
        async def watch(self, resource: object) -> None:
            await trio.lowlevel.checkpoint()

    complaint = "watch returned at once; that says the resource is dead: live as long as it does"
    assert await refuted(Idle()) == complaint


async def test_catches_a_watch_that_returns_when_the_resource_is_used() -> None:
    class Curious(Minimal):
        def __init__(self) -> None:
            self.queued = trio.Event()

        def enqueue(self, request: object) -> object:
            return request

        def cancelled(self, stage: Stage, request: object) -> None:
            self.queued.set()

        async def watch(self, resource: object) -> None:
            await self.queued.wait()

    complaint = "watch returned while the resource was in use; live as long as the resource does"
    assert await refuted(Curious()) == complaint


async def test_catches_a_watch_that_does_not_end_when_cancelled() -> None:
    class Deaf(Minimal):
        async def watch(self, resource: object) -> None:
            with trio.CancelScope(shield=True):
                await trio.sleep(60)

    assert await refuted(Deaf()) == "watch did not end within 5 s when it was cancelled; let trio.Cancelled pass"


async def test_catches_an_enqueue_that_returns_nothing() -> None:
    class Forgetful(Minimal):
        def enqueue(self, request: object) -> object:
            return None

    assert await refuted(Forgetful(), "a request") == "enqueue returned None; return the request to queue"
    await check_worker(Forgetful())


async def test_catches_an_init_that_fails_in_the_pool_only() -> None:
    class Limited(FakeWorker):
        async def init(self) -> FakeResource:
            resource = await super().init()
            if self.count("cancelled"):
                resource.terminated.append(Reason.FAILED)
                raise OSError("too many")
            return resource

    complaint = await refuted(Limited())
    assert complaint.startswith("init does not serve a pool: pool 'check_worker': no resource can be opened")
    assert "too many" in complaint


async def test_a_watch_that_reads_for_the_ping_is_running_when_it_is_pinged() -> None:
    class Reading(PoolWorker[trio.Event]):
        """Its ``watch`` is the only reader, and ``ping`` waits for what it reads."""

        async def init(self) -> trio.Event:
            await trio.lowlevel.checkpoint()
            return trio.Event()

        async def watch(self, resource: trio.Event) -> None:
            resource.set()
            await trio.sleep_forever()

        async def ping(self, resource: trio.Event) -> None:
            await resource.wait()

    await check_worker(Reading())
