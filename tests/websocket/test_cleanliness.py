from collections.abc import Awaitable, Callable
from typing import Any, Literal

import pytest
import trio
import trio.testing
from websockets.exceptions import ConcurrencyError
from websockets.frames import Opcode

from nimblepool import PoolUnavailable
from nimblepool.testing import check_balance
from nimblepool_websocket import LeasedSocket, SendInterrupted, Socket, SocketClosed, WebSocketWorker, open_websockets
from tests.websocket.figures import tasks
from tests.websocket.peer import PATIENCE, Peer, say_nothing, serving, until

BIG = 20_000_000
WAIT = 0.05


async def answer_late(peer: Peer) -> None:
    while (frame := await peer.receive()) is not None and frame.opcode is not Opcode.CLOSE:
        await trio.sleep(2 * WAIT)
        await peer.text(f"reply to {bytes(frame.data).decode()}")


async def receive(ws: LeasedSocket) -> None:
    await ws.recv()


async def stream(ws: LeasedSocket) -> None:
    async for _ in ws.recv_streaming():
        pass


@pytest.mark.parametrize("wait", [receive, stream])
async def test_a_reply_that_a_client_gave_up_waiting_for_goes_to_nobody_else(
    wait: Callable[[LeasedSocket], Awaitable[None]],
) -> None:
    async with serving(answer_late) as server, open_websockets(server.uri, max_size=1) as sockets:
        async with sockets.connection() as ws:
            await ws.send("mine")
            with trio.move_on_after(WAIT) as scope:
                await wait(ws)
            assert scope.cancelled_caught
        async with sockets.connection() as ws:
            await ws.send("yours")
            assert await ws.recv() == "reply to yours"
        assert sockets.stats.opened == 2


async def test_a_client_that_gave_up_once_and_then_received_leaves_a_clean_socket() -> None:
    async with serving(answer_late) as server, open_websockets(server.uri, max_size=1) as sockets:
        for _ in range(2):
            async with sockets.connection() as ws:
                await ws.send("mine")
                with trio.move_on_after(WAIT / 10):
                    await ws.recv()
                assert await ws.recv() == "reply to mine"
        assert sockets.stats.opened == 1


async def test_a_receive_that_is_refused_leaves_a_clean_socket(uri: str) -> None:
    async with open_websockets(uri) as sockets:
        async with sockets.connection() as ws, trio.open_nursery() as nursery:
            nursery.start_soon(ws.recv)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(ConcurrencyError):
                await anext(ws.recv_streaming())
            with pytest.raises(ConcurrencyError):
                await ws.recv()
            await ws.send("mine")
        async with sockets.connection():
            pass
        assert sockets.stats.opened == 1


async def clear(ws: Socket) -> None:
    await ws.send("all clear")
    while await ws.recv() != "all clear":
        pass


@pytest.mark.parametrize(("when", "resyncs"), [("unclean", 0), ("always", 3)])
async def test_resync_runs_after_every_lease_if_it_is_wanted(
    uri: str, when: Literal["unclean", "always"], resyncs: int
) -> None:
    count = 0

    async def resync(ws: Socket) -> None:
        nonlocal count
        count += 1
        await clear(ws)

    worker = WebSocketWorker(uri, resync=resync, resync_when=when)
    async with open_websockets(worker, max_size=1) as sockets:
        for _ in range(3):
            async with sockets.connection() as ws:
                await ws.send("mine")
                assert await ws.recv() == "mine"
        await until(lambda: sockets.stats.idle)
        assert sockets.stats.opened == 1
        check_balance(sockets.pool)
    assert count == resyncs


async def test_what_is_still_to_come_of_a_stream_is_nobody_elses_if_resync_always_runs() -> None:
    async def play(peer: Peer) -> None:
        while (frame := await peer.receive()) is not None and frame.opcode is not Opcode.CLOSE:
            text = bytes(frame.data).decode()
            for n in range(20 if text != "all clear" else 0):
                await peer.text(f"{text} {n}")
                await trio.sleep(0.001)
            await peer.text(text)

    async with serving(play) as server:
        worker = WebSocketWorker(server.uri, resync=clear, resync_when="always")
        async with open_websockets(worker, max_size=1) as sockets:
            for client in ("one", "two"):
                async with sockets.connection() as ws:
                    await ws.send(client)
                    for n in range(3):
                        assert await ws.recv() == f"{client} {n}"
            assert sockets.stats.opened == 1


async def give_up_sending(ws: Socket) -> None:
    with trio.move_on_after(WAIT):
        await ws.send(b"x" * BIG)


@pytest.mark.filterwarnings("ignore:Async generator 'websockets:ResourceWarning")
async def test_an_on_open_that_leaves_half_a_message_has_opened_nothing() -> None:
    streams: list[Any] = []

    async def leave_a_stream(ws: Socket) -> None:
        streams.append(ws.recv_streaming())
        await anext(streams[0])

    async def half_a_message(peer: Peer) -> None:
        await peer.frame(Opcode.TEXT, b"half", fin=False)
        await trio.sleep_forever()

    for hook, handler, cause in (
        (give_up_sending, say_nothing, SendInterrupted),
        (leave_a_stream, half_a_message, ValueError),
    ):
        async with serving(handler) as server:
            worker = WebSocketWorker(server.uri, on_open=hook, compression=None, close_timeout=0.1)
            async with open_websockets(worker) as sockets:
                with pytest.raises(PoolUnavailable) as caught:
                    async with sockets.connection():
                        pass
                assert isinstance(caught.value.__cause__, cause)
        assert tasks() == set()
    await streams[0].aclose()


async def test_a_resync_that_leaves_a_send_cut_short_costs_the_socket() -> None:
    async def read_one(peer: Peer) -> None:
        await peer.receive()
        await peer.text("unread")
        await trio.sleep_forever()

    async with serving(read_one) as server:
        worker = WebSocketWorker(server.uri, resync=give_up_sending, compression=None, close_timeout=0.1)
        async with open_websockets(worker, max_size=1) as sockets:
            async with sockets.connection() as ws:
                await ws.send("go")
                await until(lambda: ws.raw.recv_messages.recv_frames.statistics().current_buffer_used)
            async with sockets.connection():
                pass
            assert sockets.stats.opened == 2


async def test_a_refusal_by_on_open_is_told_before_the_socket_is_closed() -> None:
    async def refuse(_: Socket) -> None:
        raise PermissionError("no")

    async with serving(say_nothing) as server:
        worker = WebSocketWorker(server.uri, on_open=refuse, close_timeout=0.5)
        async with open_websockets(worker) as sockets:
            began = trio.current_time()
            with pytest.raises(PoolUnavailable) as caught:
                async with sockets.connection():
                    pass
            assert isinstance(caught.value.__cause__, PermissionError)
            assert trio.current_time() - began < 0.3
            assert tasks() != set()
        # And yet the pool leaves nothing behind.
        assert tasks() == set()
        assert trio.current_time() - began >= 0.5


async def flood(peer: Peer) -> None:
    while True:
        await peer.text("x")
        await trio.sleep(0.001)


async def flood_when_asked(peer: Peer) -> None:
    await peer.receive()
    await peer.text("reply")
    await trio.sleep(WAIT)
    await flood(peer)


async def test_a_socket_that_rests_and_hears_no_end_is_replaced_at_once() -> None:
    # Behind so much that reading pauses, neither its death nor a pong could be seen.
    async with serving(flood) as server:
        worker = WebSocketWorker(server.uri, close_timeout=0.1, ping_interval=None)
        async with open_websockets(worker, min_size=1) as sockets:
            with trio.fail_after(PATIENCE):
                await until(lambda: server.accepted >= 2)
            assert sockets.stats.lost
    async with serving(flood_when_asked) as server:
        worker = WebSocketWorker(server.uri, close_timeout=0.1, ping_interval=None)
        async with open_websockets(worker, min_size=1) as sockets:
            async with sockets.connection() as ws:
                await ws.send("go")
                assert await ws.recv() == "reply"
            with trio.fail_after(PATIENCE):
                await until(lambda: server.accepted >= 2)
            assert sockets.stats.lost == 1


async def test_a_client_that_reads_slowly_keeps_its_socket() -> None:
    async with serving(flood) as server:
        worker = WebSocketWorker(server.uri, close_timeout=0.1)
        async with open_websockets(worker) as sockets, sockets.connection() as ws:
            await until(lambda: ws.raw.recv_messages.paused)
            await trio.sleep(WAIT)
            for _ in range(40):
                await ws.recv()
            assert sockets.stats.lost == 0


async def test_a_breach_of_protocol_is_heard_of_before_the_connection_ends() -> None:
    async def breach(peer: Peer) -> None:
        await peer.receive()
        await peer.stream.send_all(b"\x81\x01a" + b"\x83\x00")
        await trio.sleep_forever()

    async with serving(breach) as server:
        worker = WebSocketWorker(server.uri, close_timeout=0.5, ping_interval=None)
        async with open_websockets(worker, correlate=str) as sockets:
            assert await sockets.request("a") == "a"
            with trio.fail_after(0.4), pytest.raises(SocketClosed) as caught:
                # Whether it is sent on the broken socket or on the next one, it is told at once.
                await sockets.request("b", timeout=None)
                await sockets.request("c", timeout=None)
            assert "1002" in str(caught.value)
