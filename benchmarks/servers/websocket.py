"""A WebSocket server with as little to do as possible: ``python -m benchmarks.servers.websocket``.

It sends back every text message, and agrees to no extension. uvloop and a parser for whole and short messages only,
which it unmasks in C, keep it several times faster than any of its clients. It prints its port, ends with its input,
and then prints how many messages it sent back and the processor time that took, as a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from base64 import b64encode
from hashlib import sha1
from time import process_time
from typing import Any

from benchmarks.contender import load_peer

BACKLOG = 1_024
END = b"\r\n\r\n"
KEY = b"sec-websocket-key:"
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
ACCEPT = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A
"""The first byte of whole messages and of control frames."""
ANSWERS = {TEXT: TEXT, CLOSE: CLOSE, PING: PONG}
HEAD = 6
"""Bytes before the payload of a masked message that is short."""
LONGEST = 125

apply_mask = load_peer("websockets.speedups").apply_mask


class Echo(asyncio.Protocol):
    """One connection."""

    sent_back = 0
    """Messages, by all connections."""

    def __init__(self) -> None:
        self._rest = b""
        self._receive = self._shake_hands

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - uvloop's own
        """Keep where to write."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer whatever is whole."""
        self._receive(self._rest + data)

    def _shake_hands(self, data: bytes) -> None:
        head, end, self._rest = data.partition(END)
        if not end:
            self._rest = data
            return
        key = next(line[len(KEY) :].strip() for line in head.split(b"\r\n") if line.lower().startswith(KEY))
        self._transport.write(ACCEPT + b64encode(sha1(key + MAGIC).digest()) + END)  # noqa: S324 - the protocol's own
        self._receive = self._send_back

    def _send_back(self, data: bytes) -> None:
        answers: list[bytes] = []
        begin, first = 0, TEXT
        while len(data) >= begin + HEAD and first != CLOSE:
            first, length = data[begin], data[begin + 1] & 0x7F
            if first not in ANSWERS or length > LONGEST:
                self._transport.abort()
                return
            payload, end = begin + HEAD, begin + HEAD + length
            if len(data) < end:
                break
            answers += (bytes((ANSWERS[first], length)), apply_mask(data[payload:end], data[payload - 4 : payload]))
            begin = end
        self._rest = data[begin:]
        self._write(answers, closes=first == CLOSE and not self._rest)

    def _write(self, answers: list[bytes], *, closes: bool) -> None:
        if answers:
            self._transport.write(b"".join(answers))
            Echo.sent_back += len(answers) // 2
        if closes:
            self._transport.close()


async def serve() -> None:
    """Serve until the standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    began = process_time()
    await loop.run_in_executor(None, sys.stdin.read)
    print(json.dumps({"sent_back": Echo.sent_back, "seconds": process_time() - began}), flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=load_peer("uvloop").new_event_loop) as runner:
        runner.run(serve())
