import gc
import threading
from collections.abc import Awaitable, Callable

import grpc
import psutil
import pytest
import trio
import trio.testing

from nimblepool.testing import sweep
from nimblepool_grpc._core import CoreChannel
from tests.grpc.core.process import ask, batches_left, method, open_stream, report, until

Scenario = Callable[[CoreChannel], Awaitable[object]]


async def unary(channel: CoreChannel) -> None:
    assert await ask(channel, "Echo", b"x") == b"x"


async def hanging_unary(channel: CoreChannel) -> None:
    await channel.call(method("Hang")).unary_unary(b"", ())


async def response_stream(channel: CoreChannel) -> None:
    call = open_stream(channel, 3)
    try:
        assert [await call.receive() for _ in range(4)] == [b"0", b"1", b"2", None]
        await call.status()
    finally:
        call.cancel("left")


async def hanging_response_stream(channel: CoreChannel) -> None:
    call = open_stream(channel, 1, "hang")
    assert await call.receive() == b"0"
    await call.receive()


async def request_stream(channel: CoreChannel) -> None:
    call = channel.call(method("Gather"))
    try:
        call.start_stream_unary(())
        await call.connected()
        await call.send(b"1")
        await call.send(b"2")
        await call.half_close()
        assert await call.response() == b"1,2"
    finally:
        call.cancel("left")


async def hanging_request_stream(channel: CoreChannel) -> None:
    call = channel.call(method("Ignore"))
    call.start_stream_unary(())
    await call.send(b"1")
    await call.half_close()
    await call.response()


async def chat(channel: CoreChannel) -> None:
    call = channel.call(method("Chat"))
    try:
        call.start_stream_stream(())
        await call.initial_metadata()
        await call.send(b"1")
        assert await call.receive() == b"1"
        await call.half_close()
        assert await call.receive() is None
        await call.status()
    finally:
        call.cancel("left")


async def hanging_chat(channel: CoreChannel) -> None:
    call = channel.call(method("Chat"))
    call.start_stream_stream(())
    await call.send(b"1")
    assert await call.receive() == b"1"
    await call.send(b"hang")
    await call.receive()


WORKING = (unary, response_stream, request_stream, chat)
HANGING = (hanging_unary, hanging_response_stream, hanging_request_stream, hanging_chat)


async def nothing_runs(channel: CoreChannel) -> None:
    """Wait until the core and the server have let go of everything."""
    await until(lambda: not batches_left(channel))
    assert not channel.running
    while (await report(channel))["running"]:
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("scenario", WORKING)
async def test_a_call_may_be_cancelled_anywhere(channel: CoreChannel, scenario: Scenario) -> None:
    async def once() -> None:
        await scenario(channel)

    async def after() -> None:
        with trio.CancelScope(shield=True):
            await nothing_runs(channel)

    assert await sweep(once, after) >= 2
    await scenario(channel)


@pytest.mark.parametrize("scenario", HANGING)
async def test_cancelling_a_task_cancels_the_call_in_the_server(channel: CoreChannel, scenario: Scenario) -> None:
    before = await report(channel)
    for _ in range(3):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scenario, channel)
            while not (await report(channel))["running"]:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        await nothing_runs(channel)
    assert (await report(channel))["cancelled"] - before["cancelled"] == 3


async def test_a_cancelled_task_starts_no_call(channel: CoreChannel) -> None:
    call = channel.call(method("Echo"))
    with trio.CancelScope() as scope:
        scope.cancel()
        await call.unary_unary(b"", ())
    assert scope.cancelled_caught
    assert not call.done
    assert not batches_left(channel)


async def test_a_cancelled_call_says_who_did_it(channel: CoreChannel) -> None:
    call = channel.call(method("Hang"))
    with trio.move_on_after(0.02) as scope:
        await call.unary_unary(b"", ())
    assert scope.cancelled_caught
    assert call.is_cancelled
    assert call.status_now is not None
    assert call.status_now.code is grpc.StatusCode.CANCELLED
    assert call.initial_metadata_now == ()


@pytest.mark.parametrize("wait", ["status", "initial_metadata"])
async def test_who_only_looks_on_does_not_cancel_the_call(channel: CoreChannel, wait: str) -> None:
    call = channel.call(method("Count"))
    call.start_unary_stream(b'[0, 0, "hang"]', ())
    await call.connected()
    with trio.move_on_after(0.02) as scope:
        await getattr(call, wait)()
    assert scope.cancelled_caught
    assert not call.done
    assert call.cancel("now")
    assert call.status_now is not None
    assert call.status_now.details == "now"


async def test_cancel_from_another_task_ends_every_wait(channel: CoreChannel) -> None:
    call = channel.call(method("Chat"))
    call.start_stream_stream(())
    await call.send(b"hang")
    ended: list[object] = []

    async def note(wait: Callable[[], Awaitable[object]]) -> None:
        ended.append(await wait())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(note, call.receive)
        nursery.start_soon(note, call.status)
        await trio.testing.wait_all_tasks_blocked()
        call.cancel("by another")
    assert None in ended
    assert call.status_now in ended


async def test_a_message_that_was_fetched_is_not_given_out_after_a_cancel(channel: CoreChannel) -> None:
    call = open_stream(channel, 3)
    assert await call.receive() == b"0"
    await until(lambda: batches_left(channel) == 1)  # but for the end, it is all here
    call.cancel("enough")
    assert await call.receive() is None


async def test_a_message_that_comes_with_a_cancel_is_not_given_out(channel: CoreChannel) -> None:
    call = channel.call(method("Chat"))
    call.start_stream_stream(())
    await call.send(b"1")
    assert await call.receive() == b"1"
    received: list[bytes | None] = []

    async def receive() -> None:
        received.append(await call.receive())

    assert call._receiving is not None
    call._receiving._then = call.abandon
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await call.send(b"2")
    assert received == [None]
    assert call.is_cancelled


async def test_who_is_cancelled_while_taking_a_message_that_is_here_cancels_the_call(channel: CoreChannel) -> None:
    call = open_stream(channel, 3)
    assert await call.receive() == b"0"
    await until(lambda: batches_left(channel) == 1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await call.receive()
    assert scope.cancelled_caught
    assert call.is_cancelled


def footprint() -> tuple[int, int]:
    gc.collect()
    return len(gc.get_objects()), psutil.Process().memory_info().rss


@pytest.mark.parametrize("scenario", HANGING)
async def test_cancelled_calls_leave_no_memory_and_no_thread(channel: CoreChannel, scenario: Scenario) -> None:
    async def cancelled(times: int) -> None:
        for index in range(times):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(scenario, channel)
                    if index % 2:
                        await trio.lowlevel.checkpoint()
                    else:
                        await trio.testing.wait_all_tasks_blocked(0.0005)
                    scope.cancel()
        await nothing_runs(channel)

    await cancelled(200)
    threads = threading.active_count()
    objects, memory = footprint()
    await cancelled(600)
    objects_after, memory_after = footprint()
    assert objects_after - objects < 100
    assert memory_after - memory < 600 * 600  # grpc.aio leaks 0.9 kB a call
    assert threading.active_count() <= threads
