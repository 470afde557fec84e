from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from websockets.frames import Opcode

from nimblepool import LeaseExpired, open_pool
from nimblepool_websocket import LeasedSocket, Socket, WebSocketWorker, open_websockets
from tests.websocket.peer import Peer, serving

CALLS: dict[str, Callable[[LeasedSocket | Socket], Awaitable[Any]]] = {
    "send": lambda ws: ws.send("late"),
    "fragments": lambda ws: ws.send(["la", "te"]),
    "recv": lambda ws: ws.recv(),
    "streaming": lambda ws: anext(ws.recv_streaming()),
    "iteration": lambda ws: anext(aiter(ws)),
    "ping": lambda ws: ws.ping(b"late"),
    "pong": lambda ws: ws.pong(b"late"),
    "aclose": lambda ws: ws.aclose(),
}


class Seen:
    """What the server gets."""

    def __init__(self) -> None:
        self.frames: list[tuple[Opcode, bytes]] = []

    async def echo(self, peer: Peer) -> None:
        while (frame := await peer.receive()) is not None and frame.opcode is not Opcode.CLOSE:
            self.frames.append((frame.opcode, bytes(frame.data)))
            await peer.frame(frame.opcode, bytes(frame.data))


async def expires(call: Awaitable[Any]) -> None:
    with pytest.raises(LeaseExpired):
        await call


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_call_made_in_the_block_and_begun_after_it_is_refused(
    call: Callable[[LeasedSocket | Socket], Awaitable[Any]],
) -> None:
    seen = Seen()
    async with serving(seen.echo) as server, open_websockets(server.uri, max_size=1) as sockets:
        async with trio.open_nursery() as nursery:
            async with sockets.connection() as ws:
                # The last thing in the block: leaving it is no checkpoint, so that the task begins after it.
                nursery.start_soon(expires, call(ws))
            async with sockets.connection() as mine:
                await mine.send("mine")
                assert await mine.recv() == "mine"
        assert sockets.stats.opened == 1
    assert seen.frames == [(Opcode.TEXT, b"mine")]


@pytest.mark.parametrize("name", [name for name in CALLS if name != "iteration"])
async def test_so_it_is_on_the_socket_that_a_plain_pool_lends(name: str) -> None:
    seen = Seen()
    async with serving(seen.echo) as server, open_pool(WebSocketWorker(server.uri), max_size=1) as pool:
        async with pool.checkout() as lease:
            call = CALLS[name](lease.resource)
        await expires(call)
        assert pool.stats.opened == 1
    assert seen.frames == []


async def test_a_stream_made_in_the_block_cannot_be_read_after_it(uri: str) -> None:
    async with open_websockets(uri, max_size=1) as sockets:
        async with sockets.connection() as ws:
            stream = ws.recv_streaming()
        async with sockets.connection() as ws:
            await ws.send("mine")
            await expires(anext(stream))
            assert await ws.recv() == "mine"


async def test_a_call_made_in_on_open_and_begun_after_it_is_refused(uri: str) -> None:
    late: list[Awaitable[Any]] = []

    async def on_open(ws: Socket) -> None:
        late.append(ws.recv())

    async with open_websockets(WebSocketWorker(uri, on_open=on_open)) as sockets, sockets.connection() as ws:
        await expires(late[0])
        await ws.send("mine")
        assert await ws.recv() == "mine"


async def test_a_call_begun_while_its_socket_is_being_removed_is_refused(uri: str) -> None:
    async with open_websockets(uri) as sockets:
        async with sockets.connection() as ws:
            ws.remove()
            call = ws.send("late")
        await expires(call)
