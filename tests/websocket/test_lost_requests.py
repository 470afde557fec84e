import json
import time

import pytest
import trio
import trio.testing
from websockets.frames import Opcode

from nimblepool import PoolUnavailable
from nimblepool_websocket import JSONRPC, RequestLost, SocketClosed, WebSockets, WebSocketWorker, open_websockets
from tests.websocket.figures import tasks
from tests.websocket.peer import Peer, say_nothing, serving, until

HEADER = 14
"""Bytes of the header of a masked frame with a long payload."""


async def test_a_server_that_closes_during_on_open_is_quoted() -> None:
    async def refuse(peer: Peer) -> None:
        await peer.close(1008, "policy")
        await peer.until_closed()

    async def on_open(_: object) -> None:
        await trio.sleep(0.05)

    rpc = JSONRPC()
    async with serving(refuse) as server:
        worker = WebSocketWorker(server.uri, on_open=on_open)
        async with open_websockets(worker, correlate=rpc) as sockets:
            with pytest.raises(PoolUnavailable) as caught:
                await sockets.request(rpc.call("x"))
            assert isinstance(caught.value.__cause__, SocketClosed)
            assert (caught.value.__cause__.code, caught.value.__cause__.reason) == (1008, "policy")
    assert tasks() == set()


async def test_a_pool_that_closes_in_mid_write_adds_nothing_to_the_half_message() -> None:
    received = bytearray()
    reading = trio.Event()

    async def read_late(peer: Peer) -> None:
        await reading.wait()
        while data := await peer.stream.receive_some():
            received.extend(data)

    async with serving(read_late) as server:
        worker = WebSocketWorker(server.uri, compression=None, close_timeout=3)
        async with open_websockets(worker) as sockets:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sockets.send, "x" * 20_000_000)
                await until(lambda: sockets.shared_pool.stats.leases)
                await trio.testing.wait_all_tasks_blocked(0.05)
                nursery.cancel_scope.cancel()
            began = time.monotonic()
        assert time.monotonic() - began < 2
        reading.set()
        await until(lambda: not server.living)
    body = bytes(received[HEADER:])
    assert 0 < len(body) < 20_000_000
    # The mask has four bytes, and what is masked is always the same.
    assert body == (body[:4] * (len(body) // 4 + 1))[: len(body)]


async def test_requests_fail_at_the_servers_close_frame_even_if_tcp_stays_open() -> None:
    async def close_and_stay(peer: Peer) -> None:
        await peer.receive()
        await peer.close(1001, "away")
        await trio.sleep_forever()

    rpc = JSONRPC()
    async with serving(close_and_stay) as server:
        worker = WebSocketWorker(server.uri, close_timeout=1)
        async with open_websockets(worker, correlate=rpc) as sockets:
            with trio.fail_after(0.5), pytest.raises(RequestLost) as caught:
                await sockets.request(rpc.call("x"))
            assert (caught.value.code, caught.value.reason) == (1001, "away")


async def test_replies_before_the_servers_close_frame_count_even_if_tcp_stays_open() -> None:
    async def answer_and_close(peer: Peer) -> None:
        frame = await peer.receive()
        assert frame is not None
        reply = json.dumps({"id": json.loads(bytes(frame.data))["id"], "result": 7}).encode()
        await peer.frame(Opcode.TEXT, reply[:5], fin=False)
        await peer.frame(Opcode.CONT, reply[5:])
        await peer.close(1001)
        await trio.sleep_forever()

    rpc = JSONRPC()
    async with (
        serving(answer_and_close) as server,
        open_websockets(WebSocketWorker(server.uri, close_timeout=0.1), correlate=rpc) as sockets,
    ):
        assert rpc.result(await sockets.request(rpc.call("x"))) == 7


async def test_a_death_cancels_no_request_and_says_what_was_sent() -> None:
    async def go(peer: Peer) -> None:
        await peer.receive()

    rpc = JSONRPC()
    async with serving(go) as server, open_websockets(server.uri, correlate=rpc, on_death="cancel") as sockets:
        with pytest.raises(RequestLost) as caught:
            await sockets.request(rpc.call("x"))
        assert caught.value.was_sent


async def test_what_is_given_up_behind_a_blocked_writer_is_not_kept() -> None:
    rpc = JSONRPC()
    async with serving(say_nothing) as server:
        worker = WebSocketWorker(server.uri, compression=None, close_timeout=0.1, send_timeout=60)
        async with open_websockets(worker, correlate=rpc) as sockets, trio.open_nursery() as nursery:
            nursery.start_soon(sockets.send, b"x" * 20_000_000)
            await until(lambda: sockets.shared_pool.stats.leases)
            await trio.sleep(0.05)
            async with sockets.shared_pool.checkout() as lease:
                exchange = lease.resource.exchange
            for _ in range(3):
                with trio.move_on_after(0.01):
                    await sockets.request(rpc.call("x", "y" * 100_000))
            assert not exchange._outbox
            assert not exchange.in_flight
            nursery.cancel_scope.cancel()


async def test_two_silent_peers_are_closed_in_the_time_of_one() -> None:
    async with serving(say_nothing) as server:
        async with open_websockets(WebSocketWorker(server.uri, close_timeout=0.8), min_size=1) as sockets:
            await sockets.pool.wait_ready()
            await sockets.send("x")
            began = time.monotonic()
        assert 0.5 < time.monotonic() - began < 1.5


async def test_the_blocks_error_comes_out_as_it_went_in_even_if_closing_is_cancelled(uri: str) -> None:
    rpc = JSONRPC()
    errors: list[BaseException] = []

    async def ask(sockets: WebSockets) -> None:
        with pytest.raises(RequestLost):
            await sockets.request(rpc.call("nothing"))

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            try:
                async with open_websockets(uri, correlate=rpc) as sockets:
                    nursery.start_soon(ask, sockets)
                    await until(lambda: sockets.shared_pool.stats.leases)
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
                    raise ZeroDivisionError
            except ZeroDivisionError as error:
                errors.append(error)
    assert len(errors) == 1
    assert tasks() == set()


async def test_a_cancellation_while_the_pools_close_is_the_callers(uri: str) -> None:
    with trio.CancelScope() as scope:
        async with open_websockets(uri) as sockets:
            await sockets.send("x")
            scope.cancel()
    assert scope.cancelled_caught
    assert tasks() == set()
