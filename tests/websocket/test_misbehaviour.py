from collections.abc import Awaitable, Callable

import pytest
import trio
from websockets.frames import Opcode

from nimblepool_websocket import JSONRPC, RequestLost, SocketClosed, WebSocketWorker, open_websockets
from tests.websocket.peer import Peer, serving, until


async def fragments(peer: Peer) -> None:
    await peer.frame(Opcode.TEXT, b"one ", fin=False)
    await peer.frame(Opcode.PING, b"between")
    await peer.frame(Opcode.CONT, "zwö".encode()[:3], fin=False)
    await peer.frame(Opcode.CONT, "zwö".encode()[3:], fin=True)


async def invalid_utf8(peer: Peer) -> None:
    await peer.frame(Opcode.TEXT, b"\xff\xfe")


async def huge(peer: Peer) -> None:
    await peer.text("x" * 2_000_000)


async def reserved_bits(peer: Peer) -> None:
    await peer.stream.send_all(b"\xf1\x00")


async def unknown_opcode(peer: Peer) -> None:
    await peer.stream.send_all(b"\x83\x00")


async def masked(peer: Peer) -> None:
    await peer.stream.send_all(b"\x81\x81\x00\x00\x00\x00x")


async def lonely_continuation(peer: Peer) -> None:
    await peer.frame(Opcode.CONT, b"of what?")


async def long_ping(peer: Peer) -> None:
    await peer.stream.send_all(b"\x89\x7e\x01\x00" + b"x" * 256)


async def empty_close(peer: Peer) -> None:
    await peer.frame(Opcode.CLOSE, b"")


async def bad_close(peer: Peer) -> None:
    await peer.frame(Opcode.CLOSE, b"\x03")


async def half_and_gone(peer: Peer) -> None:
    await peer.stream.send_all(b"\x81\x7ehal")
    await peer.stream.aclose()


Act = Callable[[Peer], Awaitable[None]]
CODES: dict[Act, int] = {
    invalid_utf8: 1007,
    huge: 1009,
    reserved_bits: 1002,
    unknown_opcode: 1002,
    masked: 1002,
    lonely_continuation: 1002,
    long_ping: 1002,
    bad_close: 1002,
}
"""What the client closes the socket with."""


async def test_fragments_are_put_together() -> None:
    async def serve(peer: Peer) -> None:
        for _ in range(2):
            await peer.receive()
            await fragments(peer)
            await peer.receive()  # the pong
        await peer.until_closed()

    async with serving(serve) as server, open_websockets(server.uri) as sockets:
        async with sockets.connection() as ws:
            await ws.send("go")
            assert await ws.recv() == "one zwö"
        async with sockets.connection() as ws:
            await ws.send("go")
            assert "".join([str(part) async for part in ws.recv_streaming()]) == "one zwö"


@pytest.mark.parametrize("act", [*CODES, empty_close, half_and_gone], ids=lambda act: act.__name__)
async def test_a_server_that_breaks_the_protocol_loses_its_socket(act: Act) -> None:
    codes: list[int] = []

    async def serve(peer: Peer) -> None:
        await peer.receive()
        await act(peer)
        frame = await peer.until_closed()
        if frame is not None:
            codes.append(int.from_bytes(bytes(frame.data[:2]), "big"))

    async with serving(serve) as server:
        worker = WebSocketWorker(server.uri, close_timeout=0.2)
        async with open_websockets(worker, correlate=JSONRPC()) as sockets:
            with pytest.raises(SocketClosed) as caught:
                async with sockets.connection() as ws:
                    await ws.send("go")
                    await ws.recv()
            if act is empty_close:
                assert (caught.value.code, caught.value.reason) == (1005, "")
            elif act is half_and_gone:
                assert caught.value.code == 1006
            else:
                assert codes == [CODES[act]]
                assert caught.value.sent is not None
                assert caught.value.sent.code == codes[0]
            with pytest.raises(RequestLost):
                await sockets.request('{"id": 1, "method": "go"}')


async def test_one_who_reads_slowly_makes_the_server_wait() -> None:
    sent = 0

    async def flood(peer: Peer) -> None:
        nonlocal sent
        await peer.receive()
        while True:
            await peer.text("x" * 100_000)
            sent += 1

    async with serving(flood) as server:
        worker = WebSocketWorker(server.uri, compression=None, close_timeout=0.1)
        async with open_websockets(worker) as sockets, sockets.connection() as ws:
            await ws.send("go")
            before = -1
            while before != sent:
                before = sent
                await trio.sleep(0.1)
            assert sent < 500
            for _ in range(100):
                await ws.recv()
            await until(lambda: sent > before)


async def test_unasked_messages_without_a_subscriber_are_dropped_and_replies_come_through() -> None:
    async def serve(peer: Peer) -> None:
        while (frame := await peer.receive()) is not None and frame.opcode is Opcode.TEXT:
            for n in range(300):
                await peer.text(f"noise {n}")
            await peer.text(bytes(frame.data).decode())
        await peer.close(1000)

    async with serving(serve) as server, open_websockets(server.uri, correlate=lambda message: message) as sockets:
        for n in range(3):
            assert await sockets.request(f"hello {n}", timeout=5) == f"hello {n}"
