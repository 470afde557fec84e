import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import pytest
import trio
import trio.testing
from websockets.frames import Opcode

from nimblepool_websocket import LeasedSocket, SendInterrupted, SocketClosed, WebSocketWorker, open_websockets
from tests.websocket.figures import tasks
from tests.websocket.peer import PATIENCE, Listener, Peer, say_nothing, serving, until

BIG = 20_000_000
"""More than the buffers of both sides hold."""
PART = 2**16


def brief(server: Listener) -> WebSocketWorker:
    """Return a worker that does not wait long for a server that will not close in good order."""
    return WebSocketWorker(server.uri, close_timeout=0.1)


@pytest.mark.parametrize(
    ("message", "text", "came"),
    [
        ("a", None, "a"), ("a", True, "a"), ("a", False, b"a"), ("", None, ""),
        (b"a", None, b"a"), (b"a", True, "a"), (b"a", False, b"a"), (bytearray(b"a"), None, b"a"),
        (memoryview(b"a"), True, "a"), ("\N{SNOWMAN}", None, "\N{SNOWMAN}"),
    ],
)  # fmt: skip
async def test_a_message_goes_as_what_it_is_or_as_what_the_client_says(
    uri: str, message: str | bytes, text: bool | None, came: object
) -> None:
    async with open_websockets(uri) as sockets, sockets.connection() as ws:
        await ws.send(message, text=text)
        assert await ws.recv() == came


async def test_a_message_waits_until_a_fragmented_one_is_sent(uri: str) -> None:
    go = trio.Event()

    async def fragments() -> AsyncIterator[str]:
        yield "first, "
        await go.wait()
        yield "second"

    async with open_websockets(uri) as sockets, sockets.connection() as ws, trio.open_nursery() as nursery:
        nursery.start_soon(ws.send, fragments())
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ws.send, "another")
        await trio.testing.wait_all_tasks_blocked()
        go.set()
        assert await ws.recv() == "first, second"
        assert await ws.recv() == "another"


async def test_tasks_that_send_at_once_do_not_mix_their_messages() -> None:
    go = trio.Event()
    lengths: list[int] = []

    async def read_late(peer: Peer) -> None:
        await go.wait()
        for _ in range(2):
            frame = await peer.receive()
            lengths.append(len(frame.data) if frame else -1)
        await peer.until_closed()

    async with (
        serving(read_late) as server,
        open_websockets(server.uri) as sockets,
        sockets.connection() as ws,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(ws.send, b"b" * BIG)
        await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.start_soon(ws.send, b"small")
        await trio.testing.wait_all_tasks_blocked(0.01)
        go.set()
    assert lengths == [BIG, 5]


async def test_what_the_server_sends_is_read_while_a_long_message_goes_out() -> None:
    async def answer_at_once(peer: Peer) -> None:
        came = 0
        while came < BIG:
            await peer.frame(Opcode.BINARY, b"a" * PART)
            came += len(await peer.stream.receive_some(PART))
        await peer.frame(Opcode.BINARY, b"")
        await trio.sleep_forever()

    got = 0
    with trio.fail_after(PATIENCE):
        async with (
            serving(answer_at_once) as server,
            open_websockets(brief(server)) as sockets,
            sockets.connection() as ws,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(ws.send, b"b" * BIG)
            while part := await ws.recv():
                got += len(part)
    assert got >= BIG


async def test_a_send_on_which_the_connection_breaks_tells_of_a_closed_socket() -> None:
    async def break_off(peer: Peer) -> None:
        await peer.stream.receive_some(1)
        plain = cast("trio.SocketStream", peer.stream)
        plain.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async with serving(break_off) as server:
        async with open_websockets(WebSocketWorker(server.uri)) as sockets, sockets.connection() as ws:
            with pytest.raises(SocketClosed) as caught:
                await ws.send(b"b" * BIG)
            with pytest.raises(SocketClosed):
                await ws.send(b"more")
        assert caught.value.code == 1006


async def test_text_that_cannot_be_encoded_costs_at_most_the_socket(uri: str) -> None:
    async with open_websockets(uri) as sockets:
        with pytest.raises((UnicodeEncodeError, SocketClosed)):
            async with sockets.connection() as ws:
                await ws.send("\ud800")
        async with sockets.connection() as ws:
            await ws.send("well")
            assert await ws.recv() == "well"


async def test_a_send_that_is_cut_short_lets_no_other_write_into_its_half_message() -> None:
    received: list[int] = []
    reading = trio.Event()
    outcome: list[object] = []

    async def read_late(peer: Peer) -> None:
        await reading.wait()
        while (frame := await peer.receive()) is not None:
            received.append(len(frame.data))

    async def send(ws: LeasedSocket, data: bytes) -> None:
        try:
            await ws.send(data)
            outcome.append("sent")
        except SendInterrupted as error:
            outcome.append(error)

    async with serving(read_late) as server:
        worker = WebSocketWorker(server.uri, compression=None, close_timeout=0.1)
        async with open_websockets(worker) as sockets:
            async with sockets.connection() as ws, trio.open_nursery() as nursery:
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as first:
                        first.start_soon(send, ws, b"a" * BIG)
                        await trio.testing.wait_all_tasks_blocked(0.01)
                        for _ in range(2):
                            nursery.start_soon(send, ws, b"b" * BIG)
                        await trio.testing.wait_all_tasks_blocked(0.01)
                        scope.cancel()
                with trio.fail_after(PATIENCE):
                    await ws.wait_closed()
            reading.set()
            await until(lambda: not server.living)
    assert received == []
    assert [type(each) for each in outcome] == [SendInterrupted] * 2
    assert tasks() == set()


async def cut_short(ws: LeasedSocket) -> None:
    with trio.move_on_after(0.05) as scope:
        await ws.send(b"x" * BIG)
    assert scope.cancelled_caught


@pytest.mark.parametrize("use", [LeasedSocket.ping, LeasedSocket.pong, lambda ws: ws.send("more")])
async def test_after_a_send_that_was_cut_short_nothing_is_sent(use: Callable[[LeasedSocket], Awaitable[Any]]) -> None:
    async with serving(say_nothing) as server, open_websockets(brief(server)) as sockets, sockets.connection() as ws:
        await cut_short(ws)
        with pytest.raises(SendInterrupted):
            await use(ws)


async def test_a_send_cancelled_before_its_turn_harms_no_other_that_is_under_way() -> None:
    reading = trio.Event()

    async def read_late(peer: Peer) -> None:
        await reading.wait()
        frame = await peer.receive()
        assert frame is not None
        await peer.text(str(len(frame.data)))
        await trio.sleep_forever()

    async with serving(read_late) as server, open_websockets(brief(server), max_size=1) as sockets:
        async with sockets.connection() as ws, trio.open_nursery() as nursery:
            nursery.start_soon(ws.send, b"a" * BIG)
            await trio.testing.wait_all_tasks_blocked(0.01)
            with trio.move_on_after(0.02) as scope:
                await ws.send(b"b")
            assert scope.cancelled_caught
            # What it left behind may be written with whatever comes next: so nothing does.
            with trio.fail_after(0.1), pytest.raises(SendInterrupted):
                await ws.ping()
            reading.set()
            assert await ws.recv() == str(BIG)
        async with sockets.connection():
            pass
        assert sockets.stats.opened == 2


async def test_closing_after_a_send_that_was_cut_short_takes_no_handshake() -> None:
    async with serving(say_nothing) as server:
        worker = WebSocketWorker(server.uri, close_timeout=PATIENCE)
        async with open_websockets(worker) as sockets, sockets.connection() as ws:
            await cut_short(ws)
            with trio.fail_after(PATIENCE / 2):
                await ws.aclose()


async def test_who_waits_for_a_fragmented_message_that_is_cut_short_is_told() -> None:
    async def never_ending() -> AsyncIterator[str]:
        yield "first"
        await trio.sleep_forever()

    async with (
        serving(Peer.until_closed) as server,
        open_websockets(brief(server)) as sockets,
        sockets.connection() as ws,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(ws.send, never_ending())
        await trio.testing.wait_all_tasks_blocked()

        async def wait_and_send() -> None:
            with trio.CancelScope(shield=True), pytest.raises(SendInterrupted):
                await ws.send("second")

        nursery.start_soon(wait_and_send)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_a_server_that_reads_nothing_holds_a_send_only_for_a_while() -> None:
    async with serving(say_nothing) as server:
        worker = WebSocketWorker(server.uri, send_timeout=0.1, close_timeout=0.1)
        async with open_websockets(worker) as sockets:
            began = time.monotonic()
            with trio.fail_after(PATIENCE):
                async with sockets.connection() as ws, trio.open_nursery() as nursery:
                    for _ in range(2):
                        nursery.start_soon(refused, ws)
            assert 0.1 <= time.monotonic() - began < 1


async def refused(ws: LeasedSocket) -> None:
    with pytest.raises(SocketClosed) as caught:
        await ws.send(b"x" * BIG)
    assert caught.value.__cause__ is not None
    assert isinstance(caught.value.__cause__.__cause__, TimeoutError | trio.BrokenResourceError)


async def test_a_server_that_reads_slowly_gets_all_of_a_message() -> None:
    size = 2**24

    async def read_slowly(peer: Peer) -> None:
        while (frame := await peer.receive()) is not None:
            await peer.frame(Opcode.BINARY, len(frame.data).to_bytes(4, "big"))

    async with serving(read_slowly) as server:
        worker = WebSocketWorker(server.uri, send_timeout=0.15, compression=None, close_timeout=0.1)
        async with open_websockets(worker) as sockets, sockets.connection() as ws:
            slow_down(ws)
            began = time.monotonic()
            await ws.send(b"x" * size)
            assert time.monotonic() - began > 0.3
            assert await ws.recv() == size.to_bytes(4, "big")


def slow_down(ws: LeasedSocket) -> None:
    """Let each piece take its time."""
    stream = ws.raw.stream
    send_all = stream.send_all

    async def slowly(data: bytes | bytearray | memoryview) -> None:
        await trio.sleep(0.002)
        await send_all(data)

    stream.send_all = slowly  # type: ignore[method-assign]


async def test_closing_does_not_wait_for_a_send_that_waits_for_the_server() -> None:
    async def send(ws: LeasedSocket) -> None:
        with pytest.raises(SocketClosed):
            await ws.send(b"x" * BIG)

    async with (
        serving(say_nothing) as server,
        open_websockets(brief(server)) as sockets,
        sockets.connection() as ws,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(send, ws)
        await trio.testing.wait_all_tasks_blocked(0.01)
        with trio.fail_after(PATIENCE / 2):
            await ws.aclose()
