import gc
import weakref

import grpc
import psutil
import pytest
import trio
import trio.testing

from nimblepool.testing import sweep
from nimblepool_grpc._core import CoreChannel, _channel
from tests.grpc.core.process import PATIENCE, Server, ask, batches_left, method, open_stream, until

State = grpc.ChannelConnectivity


async def ready(channel: CoreChannel) -> None:
    while (state := channel.state) is not State.READY:
        channel.connect()
        await channel.wait_for_change(state)


async def test_a_channel_connects_when_told(channel: CoreChannel) -> None:
    states = [channel.state]
    await ready(channel)
    states.append(channel.state)
    assert states == [State.IDLE, State.READY]


async def test_a_change_is_told_to_everybody_who_waits(own_server: Server) -> None:
    channel = CoreChannel(own_server.target)
    await ready(channel)
    seen: list[State] = []

    async def watch() -> None:
        seen.append(await channel.wait_for_change(State.READY))

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(watch)
            await trio.testing.wait_all_tasks_blocked()
            own_server.kill()
    assert len(seen) == 3
    assert State.READY not in seen
    channel.close()


async def test_a_watch_outlives_its_tick(channel: CoreChannel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_channel, "_TICK", 0.2)
    await ready(channel)
    with trio.move_on_after(0.7) as scope:
        await channel.wait_for_change(State.READY)
    assert scope.cancelled_caught


async def test_closing_ends_every_wait_and_every_call(channel: CoreChannel) -> None:
    await ready(channel)
    call = open_stream(channel, 0, "hang")
    hanging = channel.call(method("Hang"))
    results: list[object] = []

    async def watch() -> None:
        results.append(await channel.wait_for_change(State.READY))

    async def receive() -> None:
        results.append(await call.receive())

    async def ask_in_vain() -> None:
        results.append(await hanging.unary_unary(b"", ()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        nursery.start_soon(receive)
        nursery.start_soon(ask_in_vain)
        await trio.testing.wait_all_tasks_blocked()
        channel.close()
    assert sorted(map(str, results)) == sorted(map(str, [State.SHUTDOWN, None, None]))
    assert (await call.status()).code is grpc.StatusCode.CANCELLED
    assert channel.state is State.SHUTDOWN
    channel.connect()
    assert await channel.wait_for_change(State.SHUTDOWN) is State.SHUTDOWN


async def test_a_channel_tells_what_came_of_connecting(own_server: Server) -> None:
    channel = CoreChannel(own_server.target)
    with trio.fail_after(PATIENCE):
        assert await channel.connected() is State.READY
        assert await channel.connected() is State.READY
        own_server.kill()
        await channel.wait_for_change(State.READY)
        assert await channel.connected() is State.TRANSIENT_FAILURE
        channel.close()
        assert await channel.connected() is State.SHUTDOWN


async def test_a_connection_that_comes_and_goes_is_told_at_once() -> None:
    async def serve(client: trio.SocketStream) -> None:
        settings, goaway = bytes([0, 0, 0, 4, *bytes(5)]), bytes([0, 0, 8, 7, *bytes(13)])
        async with client:
            await client.receive_some()
            await client.send_all(settings + goaway)

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        for _ in range(20):
            channel = CoreChannel(f"127.0.0.1:{listener.socket.getsockname()[1]}")
            with trio.fail_after(1):
                while (state := await channel.connected()) is State.READY:
                    await channel.wait_for_change(State.READY)
            assert state is State.IDLE
            channel.close()
        nursery.cancel_scope.cancel()


async def test_connecting_may_be_cancelled_anywhere(server: Server) -> None:
    async def scenario() -> None:
        channel = CoreChannel(server.target)
        try:
            await channel.connected()
        finally:
            channel.close()

    assert await sweep(scenario) >= 2


async def test_watching_may_be_cancelled_anywhere(server: Server) -> None:
    async def scenario() -> None:
        channel = CoreChannel(server.target)
        try:
            await ready(channel)
        finally:
            channel.close()

    assert await sweep(scenario) >= 2


@pytest.mark.parametrize("wait_for_ready", [None, False])
async def test_without_a_server_a_call_fails_at_once(own_server: Server, wait_for_ready: bool | None) -> None:
    own_server.kill()
    channel = CoreChannel(own_server.target)
    call = channel.call(method("Echo"), wait_for_ready=wait_for_ready)
    with trio.fail_after(PATIENCE):
        assert await call.unary_unary(b"", ()) is None
    assert (await call.status()).code is grpc.StatusCode.UNAVAILABLE
    assert channel.state in {State.TRANSIENT_FAILURE, State.CONNECTING, State.IDLE}
    channel.close()


async def test_a_call_may_wait_for_the_server(own_server: Server) -> None:
    own_server.kill()
    channel = CoreChannel(own_server.target, options=[("grpc.initial_reconnect_backoff_ms", 100)])
    responses: list[bytes | None] = []

    async def call() -> None:
        responses.append(await channel.call(method("Echo"), wait_for_ready=True).unary_unary(b"x", ()))

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await channel.wait_for_change(State.IDLE)
            with Server(own_server.port):
                await until(lambda: responses)
    assert responses == [b"x"]
    channel.close()


async def test_a_killed_server_ends_what_runs_with_unavailable(own_server: Server) -> None:
    channel = CoreChannel(own_server.target)
    stream = open_stream(channel, 1, "hang")
    assert await stream.receive() == b"0"
    hanging = channel.call(method("Hang"))
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hanging.unary_unary, b"", ())
            nursery.start_soon(stream.receive)
            await trio.testing.wait_all_tasks_blocked()
            own_server.kill()
        assert (await hanging.status()).code is grpc.StatusCode.UNAVAILABLE
        assert (await stream.status()).code is grpc.StatusCode.UNAVAILABLE
    channel.close()


async def test_channels_with_a_subchannel_pool_of_their_own_connect_on_their_own(server: Server) -> None:
    before = len(connections(server))
    channels = [CoreChannel(server.target, options=[("grpc.use_local_subchannel_pool", 1)]) for _ in range(3)]
    for channel in channels:
        await ready(channel)
    assert len(connections(server)) == before + 3
    for channel in channels:
        channel.close()


def connections(server: Server) -> list[object]:
    return [
        connection
        for connection in psutil.Process().net_connections("tcp")
        if connection.status == psutil.CONN_ESTABLISHED and connection.raddr[1:] == (server.port,)
    ]


async def test_hundreds_of_watched_channels_leave_nothing(server: Server) -> None:
    before = len(connections(server))
    alive: weakref.WeakSet[CoreChannel] = weakref.WeakSet()
    for _ in range(30):
        await watch_and_close(server, alive)
    last = CoreChannel(server.target)
    with trio.fail_after(PATIENCE):
        await until(lambda: not (last._reactor.watches or batches_left(last)))
        await until(lambda: len(connections(server)) <= before)
        await until(lambda: gc.collect() is None or not alive)
    assert await ask(last, "Echo") == b""
    last.close()


async def watch_and_close(server: Server, alive: weakref.WeakSet[CoreChannel]) -> None:
    """Leave ten channels with a call and a watch each, as the end of a pool does."""
    channels = [CoreChannel(server.target, options=[("grpc.use_local_subchannel_pool", 1)]) for _ in range(10)]
    async with trio.open_nursery() as nursery:
        for channel in channels:
            alive.add(channel)
            await ready(channel)
            assert await open_stream(channel, 1, "hang").receive() == b"0"
            nursery.start_soon(channel.wait_for_change, State.READY)
        await trio.testing.wait_all_tasks_blocked()
        for channel in channels:
            channel.close()


async def test_a_call_that_somebody_keeps_does_not_keep_the_connection(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_channel, "_TICK", 1e6)
    before = len(connections(server))
    channel = CoreChannel(server.target)
    kept = [open_stream(channel, 1, then) for then in ("hang", "end")]
    for call in kept:
        assert await call.receive() == b"0"
    assert await kept[1].receive() is None
    await kept[1].status()
    kept.append(channel.call(method("Echo")))
    assert await kept[-1].unary_unary(b"", ()) == b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.wait_for_change, State.READY)
        await trio.testing.wait_all_tasks_blocked()
        channel.close()
    with trio.fail_after(PATIENCE):
        await until(lambda: len(connections(server)) <= before and not channel._reactor.watches)


async def test_options_reach_the_core(server: Server) -> None:
    channel = CoreChannel(server.target, options=[("grpc.max_receive_message_length", 10)])
    call = channel.call(method("Echo"))
    assert await call.unary_unary(b"x" * 11, ()) is None
    assert (await call.status()).code is grpc.StatusCode.RESOURCE_EXHAUSTED
    channel.close()
