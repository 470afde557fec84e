import asyncio
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import pytest
import trio
import trio.testing

from nimblepool_grpc._core import CoreChannel
from nimblepool_grpc._core._reactor import Reactor
from tests.grpc.core.process import PATIENCE, Server, ask, method, open_stream


async def many_calls(server: Server, tasks: int = 5, calls: int = 20) -> int:
    channel = CoreChannel(server.target)
    right = 0

    async def work(number: int) -> None:
        nonlocal right
        for index in range(calls):
            request = f"{number} {index}".encode()
            response = await ask(channel, "Echo", request)
            right += response == request

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for number in range(tasks):
                nursery.start_soon(work, number)
    channel.close()
    return right


def reactors() -> int:
    gc.collect()
    return sum(isinstance(each, Reactor) for each in gc.get_objects())


def test_one_run_after_the_other_is_served_by_the_same_reactor(server: Server) -> None:
    assert trio.run(many_calls, server) == 100
    before = reactors()
    threads = threading.active_count()
    for _ in range(20):
        assert trio.run(many_calls, server, 1, 3) == 3
    assert reactors() == before
    assert threading.active_count() <= threads


def test_several_runs_in_threads_at_once(server: Server) -> None:
    with ThreadPoolExecutor(4) as threads:
        for _ in range(3):
            runs = [threads.submit(trio.run, many_calls, server, 10, 30) for _ in range(4)]
            assert [run.result(PATIENCE * 2) for run in runs] == [300] * 4


async def aio_calls(server: Server, stop: threading.Event) -> int:
    right = 0
    async with grpc.aio.insecure_channel(server.target) as channel:
        echo: Any = channel.unary_unary("/test.Test/Echo")
        while not stop.is_set():
            requests = [str(index).encode() for index in range(10)]
            assert await asyncio.gather(*(echo(request) for request in requests)) == requests
            right += 10
    return right


def test_a_user_of_grpc_aio_in_another_thread_is_not_disturbed(server: Server) -> None:
    stop = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        other = thread.submit(asyncio.run, aio_calls(server, stop))
        try:
            for _ in range(3):
                assert trio.run(many_calls, server, 10, 50) == 500
        finally:
            stop.set()
        assert other.result(PATIENCE) > 0
    assert trio.run(many_calls, server) == 100


def test_grpc_aio_works_after_a_run_and_before_the_next(server: Server) -> None:
    async def once() -> None:
        async with grpc.aio.insecure_channel(server.target) as channel:
            echo: Any = channel.unary_unary("/test.Test/Echo")
            assert await asyncio.wait_for(echo(b"x"), PATIENCE) == b"x"

    for _ in range(3):
        assert trio.run(many_calls, server) == 100
        asyncio.run(once())


def test_an_asyncio_loop_that_closed_with_calls_in_flight_does_no_harm(server: Server) -> None:
    async def leave_behind() -> None:
        channel = grpc.aio.insecure_channel(server.target)
        echo: Any = channel.unary_unary("/test.Test/Count")
        await channel.channel_ready()
        kept.append((channel, [echo(b"[0, 0, 1]") for _ in range(20)]))
        await asyncio.sleep(0)

    kept: list[object] = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave_behind())
    tasks = asyncio.all_tasks(loop)
    loop.stop()
    loop.run_forever()
    loop.close()
    assert trio.run(many_calls, server) == 100
    assert trio.run(many_calls, server, 30, 10) == 300
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
    kept.clear()


def test_a_guest_run_in_asyncio(server: Server) -> None:
    async def host() -> int:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        trio.lowlevel.start_guest_run(
            many_calls,
            server,
            run_sync_soon_threadsafe=asyncio.get_running_loop().call_soon_threadsafe,
            done_callback=ended.set_result,
        )
        async with grpc.aio.insecure_channel(server.target) as channel:
            echo: Any = channel.unary_unary("/test.Test/Echo")
            while not ended.done():
                assert await echo(b"host") == b"host"
                assert asyncio.get_running_loop() is loop
        return int((await ended).unwrap())

    assert asyncio.run(asyncio.wait_for(host(), PATIENCE)) == 100


def test_the_end_of_a_run_closes_what_was_left_open(server: Server) -> None:
    left: list[CoreChannel] = []

    async def leave_behind() -> None:
        channel = CoreChannel(server.target)
        left.append(channel)
        call = open_stream(channel, 1, "hang")
        assert await call.receive() == b"0"
        assert channel.running

    started = time.monotonic()
    trio.run(leave_behind)
    assert time.monotonic() - started < PATIENCE
    (channel,) = left
    assert channel.closed
    assert not channel.running
    reactor: Any = channel._reactor
    assert reactor.begun - reactor.ended == reactor.watches
    assert trio.run(many_calls, server) == 100


def test_a_channel_needs_a_trio_run(server: Server) -> None:
    with pytest.raises(RuntimeError):
        CoreChannel(server.target)


async def test_bursts_are_completed_with_few_reads(channel: CoreChannel, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = 0
    original = Reactor._read

    def counting(self: Reactor) -> None:
        nonlocal reads
        reads += 1
        original(self)

    monkeypatch.setattr(Reactor, "_read", counting)
    await ask(channel, "Echo")
    calls = [open_stream(channel, 0) for _ in range(50)]
    time.sleep(0.3)  # noqa: ASYNC251 - so that all of it is there at once
    reads = 0
    for call in calls:
        await call.status()
    assert 1 <= reads < 20  # of 150 batches, each with its byte


async def test_events_after_the_run_are_completed_on_the_spot(channel: CoreChannel) -> None:
    done: list[int] = []
    reactor = Reactor.current()
    token = reactor._token

    async def nothing() -> None:
        pass

    def elsewhere() -> None:
        async def take() -> None:
            reactor._token = trio.lowlevel.current_trio_token()

        trio.run(take)

    try:
        await trio.to_thread.run_sync(elsewhere)
        reactor.call_soon_threadsafe(done.append, 1)
        assert done == [1]
    finally:
        reactor._token = token


@pytest.mark.parametrize(("error", "calls"), [(RuntimeError, 3), (BlockingIOError, 1)])
async def test_what_cannot_be_handed_over_does_not_hold_up_the_rest(error: type[Exception], calls: int) -> None:
    errors = [error(), error()]
    handled = 0

    def handle() -> None:
        nonlocal handled
        handled += 1
        if errors:
            raise errors.pop()

    reactor = Reactor.current()
    original, reactor._handle_events = reactor._handle_events, handle
    try:
        reactor._handle()
    finally:
        reactor._handle_events = original
    assert handled == calls


async def test_a_call_ends_while_others_wait(channel: CoreChannel) -> None:
    hanging = channel.call(method("Hang"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hanging.unary_unary, b"", ())
        for _ in range(20):
            assert await ask(channel, "Echo", b"x") == b"x"
        nursery.cancel_scope.cancel()
    assert hanging.is_cancelled
    assert (await hanging.status()).code is grpc.StatusCode.CANCELLED
