import time

import pytest
import trio
import trio.testing

from nimblepool.testing import check_balance
from nimblepool_websocket import LeasedSocket, RequestLost, SocketClosed, WebSocketWorker, open_websockets
from tests.websocket.figures import tasks
from tests.websocket.peer import Peer, say_nothing, serving, until

MANY = 500
SOON = 1.5
"""Seconds; what hangs takes at least a timeout of several."""


async def elapsed_at_close(worker: WebSocketWorker, size: int = 1) -> float:
    """Fill the buffer of a leased socket, give it back, and return how long it took to close all."""
    async with open_websockets(worker, max_size=size) as sockets:
        for _ in range(size):
            async with sockets.connection() as ws:
                await ws.send("go")
                await until(lambda ws=ws: ws.raw.recv_messages.paused or not ws.raw.recv_messages.high)  # type: ignore[misc]
        began = time.monotonic()
    check_balance(sockets.pool)
    assert tasks() == set()
    return time.monotonic() - began


async def test_every_socket_is_closed_with_1000() -> None:
    codes: list[int | None] = []

    async def note(peer: Peer) -> None:
        frame = await peer.until_closed()
        codes.append(None if frame is None else int.from_bytes(bytes(frame.data[:2]), "big"))

    async with serving(note) as server:
        async with open_websockets(server.uri, min_size=3) as sockets:
            await sockets.pool.wait_ready()
        await until(lambda: len(codes) == 3)
    assert codes == [1000] * 3
    assert tasks() == set()


async def test_unread_messages_delay_no_closing_in_good_order() -> None:
    codes: list[int] = []

    async def flood(peer: Peer) -> None:
        await peer.receive()
        for n in range(MANY):
            await peer.text(f"message {n}")
        frame = await peer.until_closed()
        assert frame is not None
        codes.append(int.from_bytes(bytes(frame.data[:2]), "big"))

    async with serving(flood) as server:
        assert await elapsed_at_close(WebSocketWorker(server.uri)) < SOON
    assert codes == [1000]


async def test_a_server_that_floods_for_ever_delays_closing_by_close_timeout() -> None:
    async def flood(peer: Peer) -> None:
        await peer.receive()
        while True:
            await peer.text("x" * 1000)

    async with serving(flood) as server:
        assert await elapsed_at_close(WebSocketWorker(server.uri, close_timeout=0.2)) < SOON


async def test_a_server_that_never_answers_delays_closing_by_close_timeout() -> None:
    async with serving(say_nothing) as server:
        worker = WebSocketWorker(server.uri, close_timeout=0.2)
        began = time.monotonic()
        async with open_websockets(worker, min_size=2) as sockets:
            await sockets.pool.wait_ready()
        assert 0.15 < time.monotonic() - began < SOON
    assert tasks() == set()


async def test_without_close_timeout_the_pool_ends_the_waiting() -> None:
    async with serving(say_nothing) as server:
        worker = WebSocketWorker(server.uri, close_timeout=None)
        began = time.monotonic()
        async with open_websockets(worker, min_size=2, terminate_timeout=0.2) as sockets:
            await sockets.pool.wait_ready()
        assert 0.15 < time.monotonic() - began < SOON
    assert tasks() == set()


async def test_whoever_still_receives_hears_of_the_end_even_if_the_server_does_not_answer() -> None:
    heard: list[BaseException] = []

    async def straggle(ws: LeasedSocket) -> None:
        try:
            await ws.recv()
        except SocketClosed as error:
            heard.append(error)

    async with serving(say_nothing) as server, trio.open_nursery() as nursery:
        worker = WebSocketWorker(server.uri, close_timeout=None)
        async with open_websockets(worker, terminate_timeout=0.1) as sockets, sockets.connection() as ws:
            nursery.start_soon(straggle, ws)
            await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(SOON):
            await until(lambda: heard)


async def test_a_cancelled_pool_closes_all_the_same(uri: str) -> None:
    with trio.move_on_after(0.1) as scope:
        async with open_websockets(uri, min_size=3) as sockets:
            await sockets.pool.wait_ready()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert tasks() == set()


async def test_an_error_comes_out_as_it_went_in(uri: str) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with open_websockets(uri) as sockets, sockets.connection(), sockets.subscribe():
            raise KeyError("mine")
    assert tasks() == set()


async def test_the_death_of_a_resting_socket_is_seen_at_once_and_mended() -> None:
    closed = trio.Event()

    async def close_at_will(peer: Peer) -> None:
        await closed.wait()
        await peer.close(1001, "going")
        await peer.until_closed()

    async with serving(close_at_will) as server, open_websockets(server.uri, min_size=1, max_size=1) as sockets:
        await sockets.pool.wait_ready()
        closed.set()
        with trio.fail_after(SOON):
            await until(lambda: server.accepted > 1)
            await until(lambda: sockets.stats.lost)


async def test_a_server_that_closes_but_keeps_the_connection_is_not_waited_for() -> None:
    async def keep(peer: Peer) -> None:
        await peer.receive()
        await peer.close(1001)
        await trio.sleep_forever()

    async with serving(keep) as server:
        worker = WebSocketWorker(server.uri, close_timeout=0.1, ping_interval=None)
        async with open_websockets(worker) as sockets:
            with trio.fail_after(SOON), pytest.raises(SocketClosed) as caught:
                async with sockets.connection() as ws:
                    await ws.send("go")
                    await ws.recv()
            assert caught.value.code == 1001
            await until(lambda: not sockets.stats.size)


async def test_a_peer_that_has_gone_silent_is_found() -> None:
    async def silent(_: Peer) -> None:
        await trio.sleep_forever()

    async with serving(silent) as server:
        worker = WebSocketWorker(server.uri, ping_interval=0.05, ping_timeout=0.05, close_timeout=0.05)
        async with open_websockets(worker, correlate=lambda message: message) as sockets:
            async with sockets.connection():
                pass
            with trio.fail_after(SOON):
                await until(lambda: sockets.stats.lost)
                with pytest.raises(RequestLost):
                    await sockets.request("hello")


async def test_a_silent_peer_is_found_behind_unread_messages() -> None:
    async def flood(peer: Peer) -> None:
        await peer.receive()
        for n in range(MANY):
            await peer.text(f"message {n}")
        await trio.sleep_forever()

    async with serving(flood) as server:
        worker = WebSocketWorker(server.uri, ping_interval=0.1, ping_timeout=0.1, close_timeout=0.1)
        async with open_websockets(worker) as sockets, sockets.connection() as ws:
            await ws.send("go")
            with trio.fail_after(SOON):
                await ws.wait_closed()
            received = 0
            with pytest.raises(SocketClosed):
                while True:
                    await ws.recv()
                    received += 1
            assert received > 16
    assert tasks() == set()


async def test_what_came_before_a_close_can_still_be_read() -> None:
    async def speak_and_close(peer: Peer) -> None:
        await peer.receive()
        for n in range(5):
            await peer.text(f"message {n}")
        await peer.close(1000, "that was all")
        await peer.until_closed()

    async with serving(speak_and_close) as server, open_websockets(server.uri) as sockets, sockets.connection() as ws:
        await ws.send("go")
        await ws.wait_closed()
        await trio.sleep(0.02)
        assert [message async for message in ws] == [f"message {n}" for n in range(5)]


async def test_on_death_cancels_the_body_if_asked_to(uri: str) -> None:
    async with open_websockets(uri, on_death="cancel") as sockets:
        with pytest.raises(Exception, match="died"), trio.fail_after(SOON):
            async with sockets.connection() as ws:
                await ws.send('{"method": "abort"}')
                await trio.sleep_forever()


async def test_a_pong_is_not_lost_on_a_ping_of_the_pools_own(uri: str) -> None:
    async with open_websockets(uri, ping_after=0.0, correlate=lambda message: message) as sockets:
        for _ in range(3):
            async with sockets.connection() as ws:
                await ws.send("hello")
                await ws.recv()
            assert await sockets.request("hello") == "hello"
        assert (sockets.stats.opened, sockets.shared_pool.stats.opened) == (1, 1)


async def test_a_ping_without_an_answer_costs_the_socket() -> None:
    async with serving(say_nothing) as server:
        worker = WebSocketWorker(server.uri, close_timeout=0.05)
        async with open_websockets(worker, ping_every=0.05, ping_timeout=0.05) as sockets:
            async with sockets.connection():
                pass
            await until(lambda: sockets.stats.lost)
