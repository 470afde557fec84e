"""Servers that die, come back, send GOAWAY, or say nothing any more."""

import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import trio

from nimblepool import PoolUnavailable
from nimblepool.testing import check_balance
from nimblepool_grpc import PooledChannel
from tests.grpc.figures import connections
from tests.grpc.kinds import KINDS, Kind, ask, begin, every_kind, finish
from tests.grpc.peer import PATIENCE, Server, until
from tests.grpc.stubs import Generated, Stubs

BACK_WITHIN = 1.0
"""Seconds after a server's return within which a call has succeeded, generously; it takes less than 0.2."""
QUICK_KEEPALIVE = [
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_timeout_ms", 300),
    ("grpc.http2.ping_timeout_ms", 300),
]


async def test_a_server_killed_and_started_again_under_load_costs_unavailable_calls_only(
    own_server: Server, pb: Stubs
) -> None:
    ends: Counter[object] = Counter()
    succeeded: list[float] = []
    done = False

    async def work(stub: Generated, n: int) -> None:
        while not done:
            try:
                await ask(KINDS[n % 4], stub, pb.Order(number=n, replies=1))
            except grpc.aio.AioRpcError as error:
                ends[error.code()] += 1
                await trio.sleep(0.005)
            else:
                ends["ok"] += 1
                succeeded.append(time.monotonic())

    async with PooledChannel(own_server.target, channels=2) as channel:
        stub = pb.PeerStub(channel)
        async with trio.open_nursery() as nursery:
            for n in range(16):
                nursery.start_soon(work, stub, n)
            for _ in range(3):
                wanted = ends["ok"] + 100
                await until(lambda: ends["ok"] >= wanted)  # noqa: B023 - the condition ends with the round
                own_server.kill()
                await until(lambda: ends[grpc.StatusCode.UNAVAILABLE])
                await trio.to_thread.run_sync(own_server.start)
                back = time.monotonic()
                await until(lambda: succeeded[-1] > back)  # noqa: B023
                assert next(at for at in succeeded if at > back) - back < BACK_WITHIN
            done = True
        check_balance(channel.pool)
        assert set(ends) == {"ok", grpc.StatusCode.UNAVAILABLE}


@every_kind
async def test_a_call_in_flight_when_its_server_dies_is_unavailable(own_server: Server, pb: Stubs, kind: Kind) -> None:
    async with PooledChannel(own_server.target) as channel:
        call = begin(kind, pb.PeerStub(channel), pb.Order(hold=True))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_is_unavailable, kind, call)
            await until(lambda: own_server.figures().running == 1)
            own_server.kill()
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        assert channel.stats.leases == 0
        await until(lambda: not channel.stats.size)
        check_balance(channel.pool)


async def _is_unavailable(kind: Kind, call: Generated) -> grpc.aio.AioRpcError:
    with trio.fail_after(PATIENCE), pytest.raises(grpc.aio.AioRpcError) as caught:
        await finish(kind, call)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    return caught.value


@every_kind
async def test_a_server_that_is_not_there_is_unavailable_at_once_and_the_core_says_why(
    own_server: Server, pb: Stubs, kind: Kind
) -> None:
    own_server.kill()
    async with PooledChannel(own_server.target) as channel:
        stub = pb.PeerStub(channel)
        began = trio.current_time()
        error = await _is_unavailable(kind, begin(kind, stub, pb.Order()))
        assert trio.current_time() - began < 2
        assert isinstance(error, PoolUnavailable)
        details = error.details()
        assert details is not None
        assert "refused" in f"{details} {error} {error.__cause__}".lower()


@every_kind
async def test_who_says_so_waits_for_a_server_that_is_not_there_yet(own_server: Server, pb: Stubs, kind: Kind) -> None:
    own_server.kill()
    replies: list[Any] = []

    async def wait(stub: Generated) -> None:
        replies.append(await ask(kind, stub, pb.Order(number=1, replies=1), wait_for_ready=True))

    async with PooledChannel(own_server.target, checkout_timeout=PATIENCE) as channel:
        stub = pb.PeerStub(channel)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, stub)
            await trio.sleep(0.05)
            assert replies == []
            await trio.to_thread.run_sync(own_server.start)
        assert len(replies) == 1


async def test_who_waits_on_a_channel_that_broke_is_served_as_soon_as_its_server_is_back(
    own_server: Server, pb: Stubs
) -> None:
    ended: list[float] = []

    async def wait(stub: Generated, kind: Kind) -> None:
        await ask(kind, stub, pb.Order(replies=1), wait_for_ready=True)
        ended.append(time.monotonic())

    async with PooledChannel(own_server.target) as channel, trio.open_nursery() as nursery:
        stub = pb.PeerStub(channel)
        await stub.Single(pb.Order())
        own_server.kill()
        for kind in KINDS:
            nursery.start_soon(wait, stub, kind)
        await trio.sleep(4)  # in which the core, left to itself, would have lengthened its delays to seconds
        await trio.to_thread.run_sync(own_server.start)
        back = time.monotonic()
        await until(lambda: len(ended) == len(KINDS))
    assert max(ended) - back < 0.3


async def test_who_waits_for_a_first_channel_is_served_as_soon_as_the_server_is_there(
    own_server: Server, pb: Stubs
) -> None:
    own_server.kill()
    async with PooledChannel(own_server.target) as channel, trio.open_nursery() as nursery:
        nursery.start_soon(partial(ask, "Single", pb.PeerStub(channel), pb.Order(), wait_for_ready=True))
        await trio.sleep(3)  # in which the pool's attempts grow apart
        await trio.to_thread.run_sync(own_server.start)
        with trio.fail_after(0.3):
            while not channel.stats.opened:  # noqa: ASYNC110 - nobody could set an event
                await trio.sleep(0.002)


@pytest.mark.parametrize("health_service", [None, ""])
async def test_the_log_says_of_a_lost_channel_what_happened_and_no_more(
    own_server: Server, pb: Stubs, caplog: pytest.LogCaptureFixture, health_service: str | None
) -> None:
    caplog.set_level("INFO", "nimblepool")
    async with PooledChannel(own_server.target, health_service=health_service) as channel:
        await pb.PeerStub(channel).Single(pb.Order())
        own_server.kill()
        await until(lambda: not channel.stats.size)
    (line,) = [record.message for record in caplog.records if "died" in record.message]
    assert "a resource died: ChannelFailed(" in line


async def test_who_waits_for_a_server_waits_no_longer_than_the_deadline(own_server: Server, pb: Stubs) -> None:
    own_server.kill()
    async with PooledChannel(own_server.target) as channel:
        stub = pb.PeerStub(channel)
        with trio.fail_after(PATIENCE), pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Single(pb.Order(), wait_for_ready=True, timeout=0.1)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.1):
            await stub.Single(pb.Order(), wait_for_ready=True)


async def test_goaway_under_load_loses_no_call(generated: Path, pb: Stubs) -> None:
    calls = 0
    aging = [("grpc.max_connection_age_ms", 150)]
    with Server(generated, options=aging) as server:

        async def work(channel: PooledChannel, n: int) -> None:
            nonlocal calls
            stub = pb.PeerStub(channel)
            while channel.stats.opened <= 8:
                reply = await ask(KINDS[n % 4], stub, pb.Order(number=n, replies=1, sleep=0.01 * (n % 3)))
                assert reply.count == 1
                calls += 1

        async with PooledChannel(server.target, channels=2) as channel:
            with trio.fail_after(PATIENCE):
                async with trio.open_nursery() as nursery:
                    for n in range(20):
                        nursery.start_soon(work, channel, n)
            assert calls > 200
            assert len(server.figures().begun) >= 8
            check_balance(channel.pool)


@pytest.mark.parametrize("kind", ["Down", "Both"])
async def test_a_stream_that_outlives_its_connections_age_is_not_cut(generated: Path, pb: Stubs, kind: Kind) -> None:
    with Server(generated, options=[("grpc.max_connection_age_ms", 100)]) as server:
        async with PooledChannel(server.target) as channel:
            stub = pb.PeerStub(channel)
            order = pb.Order(replies=30, pause=0.02)
            call = stub.Down(order) if kind == "Down" else stub.Both(iter([order]))
            assert [reply.number async for reply in call] == list(range(30))
            assert channel.stats.leases == 0
            assert (await stub.Single(pb.Order(number=1))).number == 1
            assert channel.stats.opened >= 2


async def test_an_idle_channel_whose_server_left_is_not_used(own_server: Server, pb: Stubs) -> None:
    async with PooledChannel(own_server.target) as channel:
        stub = pb.PeerStub(channel)
        for _ in range(3):
            assert (await stub.Single(pb.Order(number=1), wait_for_ready=True)).number == 1
            own_server.kill()
            await until(lambda: not channel.stats.size)
            await trio.to_thread.run_sync(own_server.start)
        assert (await stub.Single(pb.Order(number=1), wait_for_ready=True)).number == 1


@every_kind
async def test_a_server_that_says_nothing_any_more_is_found_out(own_server: Server, pb: Stubs, kind: Kind) -> None:
    async with PooledChannel(own_server.target, options=QUICK_KEEPALIVE) as channel:
        call = begin(kind, pb.PeerStub(channel), pb.Order(hold=True))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_is_unavailable, kind, call)
            await until(lambda: own_server.figures().running == 1)
            own_server.freeze()
        await until(lambda: not channel.stats.size)


async def test_a_server_that_accepts_and_says_nothing_is_given_up(pb: Stubs) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        async with PooledChannel(f"127.0.0.1:{port}", init_timeout=0.3) as channel:
            with trio.fail_after(PATIENCE), pytest.raises(grpc.aio.AioRpcError) as caught:
                await pb.PeerStub(channel).Single(pb.Order())
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_server_that_speaks_something_else_is_unavailable(pb: Stubs) -> None:
    async def talk(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, talk, [listener])
        async with PooledChannel(f"127.0.0.1:{port}", init_timeout=2) as channel:
            await _is_unavailable("Single", pb.PeerStub(channel).Single(pb.Order()))
        nursery.cancel_scope.cancel()


async def test_a_server_that_leaves_right_behind_the_handshake_holds_nobody_up(server: Server, pb: Stubs) -> None:
    settings = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    goaway = bytes([0, 0, 8, 7, 0, 0, 0, 0, 0, *bytes(8)])
    accepted = 0

    async def serve(client: trio.SocketStream) -> None:
        nonlocal accepted
        accepted += 1
        async with client:
            if accepted <= 3:
                await client.receive_some()
                await client.send_all(settings + goaway)
            else:
                await pass_on(client, server.port)

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        async with PooledChannel(f"127.0.0.1:{port}", checkout_timeout=PATIENCE) as channel:
            with trio.fail_after(PATIENCE):
                while accepted <= 3:
                    try:
                        await pb.PeerStub(channel).Single(pb.Order(), wait_for_ready=True)
                    except grpc.aio.AioRpcError as error:
                        assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - it may also succeed
                assert (await pb.PeerStub(channel).Single(pb.Order(number=1), wait_for_ready=True)).number == 1
        nursery.cancel_scope.cancel()


async def pass_on(client: trio.SocketStream, port: int) -> None:
    """Let a client and the server talk to each other."""
    server = await trio.open_tcp_stream("127.0.0.1", port)
    async with server, trio.open_nursery() as nursery:

        async def copy(source: trio.SocketStream, target: trio.SocketStream) -> None:
            async for data in source:
                await target.send_all(data)
            nursery.cancel_scope.cancel()

        nursery.start_soon(copy, client, server)
        nursery.start_soon(copy, server, client)


async def test_a_name_that_nobody_knows_is_unavailable(pb: Stubs) -> None:
    async with PooledChannel("nobody.invalid:1", init_timeout=5) as channel:
        await _is_unavailable("Single", pb.PeerStub(channel).Single(pb.Order()))


async def test_a_dead_server_leaves_no_connection(own_server: Server, pb: Stubs) -> None:
    async with PooledChannel(own_server.target, min_size=4) as channel:
        await channel.wait_ready()
        await until(lambda: len(connections(own_server.port)) == 4)
    await until(lambda: not connections(own_server.port))
