import json

import pytest
from websockets.frames import Opcode
from websockets.typing import DataLike

from nimblepool_websocket import JSONRPC, open_keyed_websockets, open_websockets
from tests.websocket.peer import Peer, serving

MESSAGES: list[tuple[DataLike, bool | None, Opcode]] = [
    ("text", None, Opcode.TEXT),
    ("text", True, Opcode.TEXT),
    ("text", False, Opcode.BINARY),
    (b"bytes", None, Opcode.BINARY),
    (b"bytes", False, Opcode.BINARY),
    (b"bytes", True, Opcode.TEXT),
]


@pytest.mark.parametrize("keyed", [False, True])
async def test_messages_go_as_text_or_binary_as_is_asked_for(keyed: bool) -> None:
    seen: list[Opcode] = []

    async def echo(peer: Peer) -> None:
        while (frame := await peer.receive()) is not None and frame.opcode is not Opcode.CLOSE:
            seen.append(frame.opcode)
            await peer.frame(frame.opcode, bytes(frame.data))
        await peer.close(1000)

    def correlate(message: str | bytes) -> bytes:
        return message.encode() if isinstance(message, str) else message

    async with serving(echo) as server:
        if keyed:
            async with open_keyed_websockets(correlate=correlate) as many:
                for message, text, _ in MESSAGES:
                    await many.request(server.uri, message, text=text)
                    await many.send(server.uri, message, text=text)
        else:
            async with open_websockets(server.uri, correlate=correlate) as sockets:
                for message, text, _ in MESSAGES:
                    await sockets.request(message, text=text)
                    await sockets.send(message, text=text)
    assert seen == [opcode for _, _, opcode in MESSAGES for _ in range(2)]


async def test_bytes_that_are_no_text_are_refused_and_cost_nobody_the_socket(uri: str) -> None:
    rpc = JSONRPC()
    async with open_websockets(uri, correlate=rpc) as sockets:
        assert rpc.result(await sockets.request(rpc.call("echo", 1))) == 1
        with pytest.raises(UnicodeDecodeError):
            await sockets.send(b"\xff", text=True)
        call = json.loads(rpc.call("echo", 2))
        assert rpc.result(await sockets.request(json.dumps(call).encode(), text=True)) == 2
        assert sockets.shared_pool.stats.opened == 1


@pytest.mark.parametrize("timeout", [-1, float("nan")])
async def test_a_timeout_says_that_it_may_be_0(uri: str, timeout: float) -> None:
    async with open_websockets(uri, correlate=JSONRPC()) as sockets:
        with pytest.raises(ValueError, match="timeout must be 0 or more"):
            await sockets.send("x", timeout=timeout)
