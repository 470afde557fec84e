"""A gRPC server with as little to do as possible: ``python -m benchmarks.servers.rpc KIND``.

It answers calls of one kind: whatever is called, since it never looks into a header. uvloop, a parser that only cuts
HTTP/2's frames, and answers that are made beforehand keep it several times faster than any of its clients. It counts
bytes to know where messages end, so all have to be of the length of `messages.REQUEST`, neither compressed nor padded.
It honours the client's windows, and its own are as wide as can be. It prints its port, ends with its input, and then
prints how many messages went through it and the processor time that took, as a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from time import process_time
from typing import Any

from benchmarks.contender import load_peer

from . import frames
from .messages import COUNT, REQUEST, RESPONSE, counted
from .targets import BOTH, REQUESTS, RESPONSES, UNARY

BACKLOG = 1_024
REPLY = frames.enclose(RESPONSE)
LENGTH = len(REPLY)
"""Bytes of a message, either way."""
ACCOUNT_AT = 2**20
"""Bytes after which the client gets them back for its window."""


@dataclass(slots=True)
class Stream:
    """One call: what the client may be sent, and what it is owed. ``ends`` if nothing comes after what is owed."""

    window: int
    received: int = 0
    owed: int = 0
    reply: bytes = REPLY
    begun: bool = False
    ends: bool = False


class Connection(asyncio.Protocol):
    """One connection; what it answers, subclasses say.

    A stream is in ``_streams`` from its first frame until its answer has ended; in ``_blocked`` while a window is too
    small for what it is owed.
    """

    messages = 0
    """By all connections."""

    def __init__(self) -> None:
        self._rest = b""
        self._receive = self._skip_preface
        self._out: list[bytes] = []
        self._window = self._initial = frames.WINDOW
        self._unaccounted = 0
        self._streams: dict[bytes, Stream] = {}
        self._blocked: dict[bytes, Stream] = {}
        self._on = {
            frames.DATA: self._on_data,
            frames.HEADERS: self._on_headers,
            frames.RST_STREAM: self._on_reset,
            frames.SETTINGS: self._on_settings,
            frames.PING: self._on_ping,
            frames.WINDOW_UPDATE: self._on_window,
        }

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - uvloop's own
        """Open the windows."""
        self._transport = transport
        widen = frames.build(frames.WINDOW_UPDATE, frames.number(frames.LARGEST - frames.WINDOW))
        transport.write(frames.settings({frames.INITIAL_WINDOW_SIZE: frames.LARGEST}) + widen)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everybody."""
        del exc
        self._streams.clear()

    def data_received(self, data: bytes) -> None:
        """Answer whatever is whole."""
        self._receive(self._rest + data)

    def hear(self, name: bytes, stream: Stream) -> None:
        """Do what a piece of a request calls for: nothing, usually."""

    def answer(self, name: bytes, stream: Stream) -> None:
        """Answer a request that has ended."""
        self.finish(name, stream, 1)

    def finish(self, name: bytes, stream: Stream, count: int) -> None:
        """Owe so many messages more, and then the end."""
        stream.owed += count
        stream.ends = True
        self.send(name, stream)

    def send(self, name: bytes, stream: Stream) -> None:
        """Send what is owed, as far as the windows allow."""
        count = min(stream.owed, stream.window // LENGTH, self._window // LENGTH)
        all_of_it = count == stream.owed
        ends = stream.ends and all_of_it
        self._out.append(name.join(frames.answer_around(stream.reply, count, begins=not stream.begun, ends=ends)))
        stream.begun = True
        stream.owed -= count
        stream.window -= count * LENGTH
        self._window -= count * LENGTH
        Connection.messages += count
        if ends:
            del self._streams[name]
        if not all_of_it:
            self._blocked[name] = stream

    def flush(self) -> None:
        """Write what was sent."""
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def _skip_preface(self, data: bytes) -> None:
        self._rest = data
        if len(data) >= len(frames.PREFACE):
            self._receive = self._take_frames
            self._take_frames(data[len(frames.PREFACE) :])

    def _take_frames(self, data: bytes) -> None:
        whole, self._rest = frames.cut(data)
        for kind, flags, name, payload in whole:
            if on := self._on.get(kind):
                on(flags, name, payload)
        self.flush()

    def _on_headers(self, flags: int, name: bytes, payload: bytes) -> None:
        del payload
        stream = self._streams[name] = Stream(self._initial)
        if flags & frames.END_STREAM:
            self.answer(name, stream)

    def _on_data(self, flags: int, name: bytes, payload: bytes) -> None:
        self._account(len(payload))
        stream = self._streams.get(name)
        if stream is None:
            return
        stream.received += len(payload)
        self.hear(name, stream)
        if flags & frames.END_STREAM:
            self.answer(name, stream)

    def _account(self, length: int) -> None:
        self._unaccounted += length
        if self._unaccounted >= ACCOUNT_AT:
            self._out.append(frames.build(frames.WINDOW_UPDATE, frames.number(self._unaccounted)))
            self._unaccounted = 0

    def _on_reset(self, flags: int, name: bytes, payload: bytes) -> None:
        del flags, payload
        self._streams.pop(name, None)
        self._blocked.pop(name, None)

    def _on_settings(self, flags: int, name: bytes, payload: bytes) -> None:
        del name
        if flags & frames.ACK:
            return
        initial = frames.read_settings(payload).get(frames.INITIAL_WINDOW_SIZE, self._initial)
        for stream in self._streams.values():
            stream.window += initial - self._initial
        self._initial = initial
        self._out.append(frames.build(frames.SETTINGS, b"", frames.ACK))
        self._unblock()

    def _on_ping(self, flags: int, name: bytes, payload: bytes) -> None:
        del name
        if not flags & frames.ACK:
            self._out.append(frames.build(frames.PING, payload, frames.ACK))

    def _on_window(self, flags: int, name: bytes, payload: bytes) -> None:
        del flags
        more = int.from_bytes(payload)
        if name == frames.CONNECTION:
            self._window += more
        elif stream := self._streams.get(name):
            stream.window += more
        self._unblock()

    def _unblock(self) -> None:
        if self._blocked:
            blocked, self._blocked = self._blocked, {}
            for name, stream in blocked.items():
                self.send(name, stream)


class ResponseStream(Connection):
    """Answers each request with many messages."""

    def answer(self, name: bytes, stream: Stream) -> None:
        """Answer a request that has ended."""
        self.finish(name, stream, COUNT)


class RequestStream(Connection):
    """Says how many messages a request had."""

    def answer(self, name: bytes, stream: Stream) -> None:
        """Answer a request that has ended."""
        count = stream.received // LENGTH
        Connection.messages += count
        stream.reply = frames.enclose(counted(count))
        self.finish(name, stream, 1)


class BothWays(Connection):
    """Answers each message with one."""

    def hear(self, name: bytes, stream: Stream) -> None:
        """Answer the messages that are whole."""
        whole, stream.received = divmod(stream.received, LENGTH)
        stream.owed += whole
        if whole:
            self.send(name, stream)

    def answer(self, name: bytes, stream: Stream) -> None:
        """End when the request has."""
        self.finish(name, stream, 0)


KINDS = {UNARY: Connection, RESPONSES: ResponseStream, REQUESTS: RequestStream, BOTH: BothWays}


async def serve(kind: str) -> None:
    """Serve until the standard input ends."""
    assert len(REQUEST) == len(RESPONSE)  # noqa: S101 - what it counts with
    loop = asyncio.get_running_loop()
    server = await loop.create_server(KINDS[kind], "127.0.0.1", 0, backlog=BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    began = process_time()
    await loop.run_in_executor(None, sys.stdin.read)
    print(json.dumps({"messages": Connection.messages, "seconds": process_time() - began}), flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=load_peer("uvloop").new_event_loop) as runner:
        runner.run(serve(sys.argv[1]))
