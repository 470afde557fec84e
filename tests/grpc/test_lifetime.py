"""A channel from its construction to its end, and what comes after."""

import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest
import trio

from nimblepool import PoolClosed
from nimblepool.testing import check_balance
from nimblepool_grpc import PooledChannel, RpcCancelled
from tests.grpc.figures import connections, threads
from tests.grpc.kinds import KINDS, STREAMS, Kind, ask, begin, every_kind, finish
from tests.grpc.peer import PATIENCE, Server, nothing_runs, until
from tests.grpc.stubs import Generated, Stubs


@every_kind
async def test_a_stub_can_be_built_before_its_channel_is_entered_but_not_used(
    server: Server, pb: Stubs, kind: Kind
) -> None:
    channel = PooledChannel(server.target)
    stub = pb.PeerStub(channel)
    with pytest.raises(PoolClosed, match="not open yet: use it inside `async with"):
        await ask(kind, stub, pb.Order())
    async with channel:
        assert (await ask(kind, stub, pb.Order(replies=1))).count == 1


@every_kind
async def test_a_channel_that_was_left_refuses(server: Server, pb: Stubs, kind: Kind) -> None:
    async with PooledChannel(server.target) as channel:
        stub = pb.PeerStub(channel)
    with pytest.raises(PoolClosed) as caught:
        await ask(kind, stub, pb.Order())
    assert isinstance(caught.value, grpc.aio.AioRpcError)
    check_balance(channel.pool)


@every_kind
@pytest.mark.parametrize("grace", [0, 0.05])
async def test_leaving_a_channel_cancels_what_still_runs_on_it(
    own_server: Server, pb: Stubs, kind: Kind, grace: float
) -> None:
    ends: list[BaseException] = []
    calls: list[Any] = []

    async def call(stub: Generated) -> None:
        try:
            calls.append(begin(kind, stub, pb.Order(hold=True)))
            await finish(kind, calls[-1])
        except grpc.aio.AioRpcError as error:
            ends.append(error)

    async with trio.open_nursery() as nursery:
        async with PooledChannel(own_server.target, close_grace=grace) as channel:
            for _ in range(5):
                nursery.start_soon(call, pb.PeerStub(channel))
            await until(lambda: own_server.figures().running == 5)
        check_balance(channel.pool)
        await until(lambda: len(ends) == 5)
    assert all(one.done() and one.cancelled() for one in calls)
    for one in calls:
        with pytest.raises(RpcCancelled, match="the channel was closed"):
            await finish(kind, one)
    assert {type(error) for error in ends} == {RpcCancelled}
    # Though the calls are still held here, their connection is not.
    await until(lambda: not connections(own_server.port))
    await nothing_runs(own_server)


async def test_leaving_a_channel_with_streams_that_nobody_waits_for_ends_them(own_server: Server, pb: Stubs) -> None:
    async with PooledChannel(own_server.target, close_grace=0.05) as channel:
        call = pb.PeerStub(channel).Both()
        await call.write(pb.Order())
        await call.read()
    assert call.done()
    await nothing_runs(own_server)
    with pytest.raises(grpc.aio.AioRpcError):
        await call.read()
    with pytest.raises(grpc.aio.AioRpcError):
        await call.write(pb.Order())


@pytest.mark.parametrize("kind", STREAMS)
async def test_the_streams_of_the_task_that_leaves_do_not_delay_it(own_server: Server, pb: Stubs, kind: Kind) -> None:
    with trio.fail_after(PATIENCE / 2):
        async with PooledChannel(own_server.target, close_grace=PATIENCE) as channel:
            call = begin(kind, pb.PeerStub(channel), pb.Order(hold=True))
            await call.wait_for_connection()
    assert call.done()


async def test_a_call_that_ends_in_time_is_waited_for(own_server: Server, pb: Stubs) -> None:
    replies: list[Any] = []

    async def call(stub: Generated) -> None:
        replies.append(await stub.Single(pb.Order(sleep=0.1, number=1)))

    async with trio.open_nursery() as nursery, PooledChannel(own_server.target, close_grace=PATIENCE) as channel:
        nursery.start_soon(call, pb.PeerStub(channel))
        await until(lambda: own_server.figures().running == 1)
    assert [reply.number for reply in replies] == [1]


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyError("mine")])
async def test_an_error_in_the_body_comes_out_as_it_went_in(server: Server, pb: Stubs, error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        async with PooledChannel(server.target) as channel:
            await pb.PeerStub(channel).Single(pb.Order())
            raise error
    assert caught.value is error


async def test_a_cancellation_of_the_body_comes_out_as_it_went_in(server: Server, pb: Stubs) -> None:
    with trio.CancelScope() as scope:
        async with PooledChannel(server.target) as channel:
            await pb.PeerStub(channel).Single(pb.Order())
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


def test_one_run_of_trio_after_the_other_works_and_leaves_neither_thread_nor_connection(
    server: Server, pb: Stubs
) -> None:
    async def main() -> None:
        async with PooledChannel(server.target) as channel:
            for kind in KINDS:
                assert (await ask(kind, pb.PeerStub(channel), pb.Order(replies=1))).count == 1

    before = connections(server.port)
    for _ in range(3):
        trio.run(main)
    settled = threads()
    for _ in range(30):
        trio.run(main)
    assert threads() < settled + 10  # the core's own come and go
    assert connections(server.port) == before


def test_a_run_that_is_cut_off_harms_no_later_one(server: Server, pb: Stubs) -> None:
    calls: list[Any] = []

    async def crash() -> None:
        async with PooledChannel(server.target, close_grace=0) as channel, trio.open_nursery() as nursery:
            for kind in KINDS:
                calls.append(begin(kind, pb.PeerStub(channel), pb.Order(hold=True)))
                nursery.start_soon(finish, kind, calls[-1])
            await until(lambda: server.figures().running == len(KINDS))
            raise RuntimeError("mine")

    async def work() -> None:
        await nothing_runs(server)
        async with PooledChannel(server.target) as channel:
            assert (await pb.PeerStub(channel).Single(pb.Order(number=1))).number == 1

    for _ in range(3):
        with pytest.raises(ExceptionGroup):
            trio.run(crash)
        trio.run(work)


def test_runs_of_trio_in_several_threads_share_the_poller(server: Server, pb: Stubs) -> None:
    done: list[int] = []

    async def main(number: int) -> None:
        async with PooledChannel(server.target) as channel, trio.open_nursery() as nursery:
            for n in range(50):
                nursery.start_soon(check, pb.PeerStub(channel), KINDS[n % 4])
        done.append(number)

    async def check(stub: Generated, kind: Kind) -> None:
        for _ in range(5):
            assert (await ask(kind, stub, pb.Order(replies=1))).count == 1

    workers = [threading.Thread(target=trio.run, args=(main, n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(PATIENCE)
    assert sorted(done) == [0, 1, 2]


SCRIPT = """
import asyncio, sys, threading, trio, grpc.aio
sys.path.append(sys.argv[1])
import peer_pb2 as pb, peer_pb2_grpc as stubs
from nimblepool_grpc import PooledChannel

async def ours():
    async with PooledChannel(sys.argv[2]) as channel:
        stub = stubs.PeerStub(channel)
        for n in range(200):
            assert (await stub.Single(pb.Order(number=n))).number == n
        if sys.argv[3] == "running":
            await stub.Single(pb.Order(hold=True), timeout=0.2)

async def theirs():
    async with grpc.aio.insecure_channel(sys.argv[2]) as channel:
        stub = stubs.PeerStub(channel)
        for n in range(200):
            assert (await stub.Single(pb.Order(number=n))).number == n

if sys.argv[3] == "beside":
    thread = threading.Thread(target=asyncio.run, args=(theirs(),))
    thread.start()
    trio.run(ours)
    thread.join()
elif sys.argv[3] == "guest":
    async def host():
        ended = asyncio.get_running_loop().create_future()
        trio.lowlevel.start_guest_run(
            ours, run_sync_soon_threadsafe=asyncio.get_running_loop().call_soon_threadsafe,
            done_callback=ended.set_result,
        )
        await theirs()
        (await ended).unwrap()
        await theirs()
    asyncio.run(host())
elif sys.argv[3] == "blind":
    # A loop that cannot watch sockets, as Windows has one: from then on cygrpc asks nobody to.
    import time
    from nimblepool_grpc._core import CoreChannel
    class Blind(asyncio.SelectorEventLoop):
        def add_reader(self, *_):
            raise NotImplementedError

    async def leave_a_call():
        call = CoreChannel(sys.argv[2]).call(b"/nimblepool.tests.Peer/Both")
        call.start_stream_stream(())
        await call.connected()

    thread = threading.Thread(target=Blind().run_until_complete, args=(theirs(),))
    thread.start()
    thread.join()
    trio.run(ours)
    start = time.monotonic()
    trio.run(leave_a_call)
    assert time.monotonic() - start < 0.9
elif sys.argv[3] == "after":
    asyncio.run(theirs())
    trio.run(ours)
    asyncio.run(theirs())
else:
    trio.run(ours)
print("done")
"""

COMPLAINT = re.compile(
    r"Exception in callback PollerCompletionQueue\._handle_events\(.*\)\(\)\n"
    r"handle: <Handle PollerCompletionQueue\._handle_events\(.*\)\(\)>\n"
    r"Traceback \(most recent call last\):\n"
    r'  File ".*/asyncio/events\.py", line \d+, in _run\n(?: {4}.*\n)*'
    r'  File ".*/completion_queue\.pyx\.pxi", line \d+, in grpc\._cython\..*\._handle_events\n'
    r"BlockingIOError: .*\n"
)
"""All of what grpc.aio and asyncio write then: a line of anybody else's remains."""


@pytest.mark.parametrize("how", ["alone", "beside", "guest", "blind", "after"])
def test_it_gets_along_with_asyncio_in_one_process_which_ends_cleanly(
    server: Server, generated: Path, how: str
) -> None:
    done = _run_script(generated, server, how)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    # Two loops share one poller: an older grpc.aio complains, without harm, when the other one was faster.
    assert COMPLAINT.sub("", done.stderr) == ""


def test_a_process_that_ends_with_an_error_ends(server: Server, generated: Path) -> None:
    done = _run_script(generated, server, "running")
    assert done.returncode == 1
    assert "DEADLINE_EXCEEDED" in done.stderr


def _run_script(generated: Path, server: Server, how: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", SCRIPT, str(generated), server.target, how]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"channels": 0}, "channels"),
        ({"channels": -1}, "channels"),
        ({"calls_per_channel": 0}, "calls_per_channel"),
        ({"checkout_timeout": -1}, "checkout_timeout"),
        ({"max_size": 3}, "channels"),
        ({"min_size": 5}, "min_size"),
        ({"options": ["grpc.keepalive_time_ms"]}, "options"),
        ({"options": [("grpc.keepalive_time_ms", 2**31)]}, r"grpc\.keepalive_time_ms.* must be at least"),
        ({"options": [("grpc.keepalive_time_ms", -(2**31) - 1)]}, r"grpc\.keepalive_time_ms.* must be at least"),
        ({"options": [("grpc.keepalive_time_ms", 1.5)]}, r"grpc\.keepalive_time_ms.* whole number"),
        ({"options": [("grpc.primary_user_agent", "\ud800")]}, r"grpc\.primary_user_agent.* surrogate"),
        ({"options": [("grpc.\ud800", 1)]}, "surrogate"),
        ({"credentials": object()}, "credentials"),
        ({"interceptors": [object()]}, "interceptor"),
        ({"nonsense": 1}, "nonsense"),
        ({"ping_every": 1}, "health_service"),
        ({"ping_after": 1}, "keepalive_time_ms"),
        ({"ping_timeout": 1}, "keepalive_timeout_ms"),
        ({"reset_timeout": 1}, "reset_timeout"),
    ],
)
def test_a_wrong_option_is_refused_at_once_and_the_error_names_it(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises((ValueError, TypeError), match=complaint):
        PooledChannel("127.0.0.1:1", **options)


@pytest.mark.parametrize("target", ["", 7, None])
def test_a_wrong_target_is_refused_at_once(target: object) -> None:
    with pytest.raises((ValueError, TypeError), match="target"):
        PooledChannel(cast("str", target))


async def test_a_channel_is_open_once_at_a_time_and_can_be_opened_again(server: Server, pb: Stubs) -> None:
    channel = PooledChannel(server.target)
    stub = pb.PeerStub(channel)
    for _ in range(2):
        async with channel:
            with pytest.raises(RuntimeError, match="open already"):
                async with channel:
                    pass
            assert (await stub.Single(pb.Order(number=1))).number == 1


async def test_a_channel_can_be_asked_to_connect_while_it_opens_and_closes(server: Server) -> None:
    channel = PooledChannel(server.target, min_size=1)
    states: set[grpc.ChannelConnectivity] = set()

    async def ask_again_and_again() -> None:
        while True:
            states.add(channel.get_state(try_to_connect=True))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_again_and_again)
        for _ in range(3):
            async with channel:
                await channel.wait_ready()
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert {grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.SHUTDOWN} <= states
