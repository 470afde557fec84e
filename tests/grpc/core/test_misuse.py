"""Callbacks that raise, interrupts at bad moments, and calls in a run that is not theirs."""

import signal
from collections.abc import Awaitable, Callable, Iterator

import pytest
import trio
import trio.testing

from nimblepool_grpc._core import CoreCall, CoreChannel
from nimblepool_grpc._core._batch import Batch
from nimblepool_grpc._core._reactor import Reactor
from tests.grpc.core.process import PATIENCE, Server, ask, method, open_stream


class Out(BaseException):
    """What no `except Exception` catches."""


def fail() -> None:
    raise Out


@pytest.mark.parametrize("name", ["Echo", "Fail"])
async def test_a_callback_that_wants_out_holds_nobody_up(
    channel: CoreChannel, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    told: list[CoreCall] = []
    call = channel.call(method(name))
    call.add_done_callback(fail)
    call.add_done_callback(lambda: told.append(call))
    with trio.fail_after(PATIENCE):
        assert await call.unary_unary(b"x", ()) == (b"x" if name == "Echo" else None)
    assert told == [call]
    assert [record.name for record in caplog.records] == ["nimblepool"]
    assert "a done callback of an RPC failed" in caplog.text


async def test_a_callback_that_wants_out_replaces_no_cancellation(
    channel: CoreChannel, caplog: pytest.LogCaptureFixture
) -> None:
    call = channel.call(method("Hang"))
    call.add_done_callback(fail)
    with trio.move_on_after(0.05) as scope:
        await call.unary_unary(b"", ())
    assert scope.cancelled_caught
    assert "a done callback of an RPC failed" in caplog.text


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Ctrl-C is heard, even if the shell has made this process deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_that_comes_as_a_batch_begins_loses_no_batch(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Batch.begin
    batches: list[Batch] = []
    reactors: list[Reactor] = []

    def begin_late(self: Batch, steps: Iterator[object], then: Callable[[], None] | None) -> None:
        monkeypatch.undo()
        batches.append(self)
        signal.raise_signal(signal.SIGINT)
        begin(self, steps, then)

    async def main() -> None:
        channel = CoreChannel(server.target)
        await ask(channel, "Echo")
        reactors.append(Reactor.current())
        monkeypatch.setattr(Batch, "begin", begin_late)
        await ask(channel, "Echo")

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    (reactor,) = reactors
    assert reactor.begun == reactor.ended + reactor.watches
    assert [batch.ended for batch in batches] == [True]


async def receive(call: CoreCall) -> None:
    await call.receive()


async def send(call: CoreCall) -> None:
    await call.send(b"x")


async def half_close(call: CoreCall) -> None:
    await call.half_close()


async def status(call: CoreCall) -> None:
    await call.status()


async def connected(call: CoreCall) -> None:
    await call.connected()


async def cancel(call: CoreCall) -> None:
    call.cancel("from elsewhere")


@pytest.mark.parametrize("use", [receive, send, half_close, status, connected, cancel])
async def test_a_call_refuses_another_run_and_goes_on_in_its_own(
    channel: CoreChannel, use: Callable[[CoreCall], Awaitable[None]]
) -> None:
    call = channel.call(method("Chat"))
    call.start_stream_stream(())
    await call.send(b"1")
    first = await call.receive()

    def elsewhere() -> None:
        with pytest.raises(RuntimeError, match=r"another thread or run: go through trio\.from_thread"):
            trio.run(use, call)

    with trio.fail_after(PATIENCE):
        await trio.to_thread.run_sync(elsewhere)
        assert not call.done
        await call.send(b"1")
        assert await call.receive() == first
    assert call.cancel("enough")


async def test_a_thread_cannot_cancel_a_call_that_somebody_waits_for(channel: CoreChannel) -> None:
    call = open_stream(channel, 1, "hang")

    def elsewhere() -> None:
        with pytest.raises(RuntimeError, match="another thread or run"):
            call.cancel("from a thread")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.status)
        await trio.testing.wait_all_tasks_blocked()
        await trio.to_thread.run_sync(elsewhere)
        assert not call.done
        call.cancel("from here")


def test_a_call_may_be_cancelled_in_vain_after_its_run(server: Server) -> None:
    async def main() -> CoreCall:
        call = open_stream(CoreChannel(server.target), 1, "hang")
        await call.receive()
        return call

    call = trio.run(main)
    assert call.cancel("too late") is False
