"""HTTP/2 servers whose frames a test chooses."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import trio

from tests.http.servers.listening import Option, Server, serving

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

MAX_STREAMS = h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS


class Stream:
    """One request and the answer to it.

    Invariant: ended is set once the request is complete, or was reset by the client
    """

    def __init__(self, visitor: Visitor, number: int, headers: dict[str, str]) -> None:
        self.visitor = visitor
        self.number = number
        self.method = headers[":method"]
        self.path = headers[":path"]
        self.headers = headers
        self.body = b""
        self.ended = trio.Event()
        self.reset_by_client: int | None = None
        self.reads = True
        """Whether the body is taken off the client's hands; a handler may stop that."""

    async def answer(self, body: bytes = b"ok", **headers: str) -> None:
        """Send a whole response."""
        await self.begin(200, **headers)
        await self.send(body)
        await self.end()

    async def begin(self, status: int = 200, /, **headers: str) -> None:
        self.visitor.state.send_headers(self.number, [(":status", str(status)), *headers.items()])
        await self.visitor.flush()

    async def send(self, data: bytes) -> None:
        """Send data as fast as the client's windows allow."""
        while data:
            room = min(await self._room(), self.visitor.state.max_outbound_frame_size)
            self.visitor.state.send_data(self.number, data[:room])
            data = data[room:]
            await self.visitor.flush()

    async def end(self) -> None:
        if self.reset_by_client is not None:  # h2 has forgotten the stream, and would say KeyError
            raise h2.exceptions.StreamClosedError(self.number)
        self.visitor.state.end_stream(self.number)
        await self.visitor.flush()

    async def reset(self, code: int = 0) -> None:
        self.visitor.state.reset_stream(self.number, code)
        await self.visitor.flush()

    async def stop(self) -> None:
        """Say that the rest of the request is not wanted, as if it had not come; after an answer (RFC 9113, 8.1)."""
        await self.visitor.send_raw(b"\0\0\x04\x03\0" + self.number.to_bytes(4, "big") + bytes(4))

    async def _room(self) -> int:
        while not (room := self.visitor.state.local_flow_control_window(self.number)):
            await self.visitor.more_room()
        return room


class Visitor:
    """One connection, as its server sees it."""

    def __init__(self, stream: trio.abc.Stream, number: int, max_streams: int | None) -> None:
        self.stream = stream
        self.number = number
        self.streams: dict[int, Stream] = {}
        self.goaway_by_client = False
        self.state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        if max_streams is not None:
            self.state.local_settings = h2.settings.Settings(client=False, initial_values={MAX_STREAMS: max_streams})
        self._sending = trio.Lock()
        self._room = trio.Event()

    @property
    def open_streams(self) -> int:
        return self.state.open_inbound_streams

    async def run(self, handle: Callable[[Stream], Awaitable[object]], greet: bool) -> None:
        """Serve each request with ``await handle(stream)``, as soon as its headers are there."""
        if greet:
            self.state.initiate_connection()
            await self.flush()
        async with trio.open_nursery() as nursery:
            while data := await self.stream.receive_some(65_536):
                for event in self.state.receive_data(data):
                    stream = self._note(event)
                    if stream is not None:
                        nursery.start_soon(self._serve, handle, stream)
                await self.flush()
            nursery.cancel_scope.cancel()

    async def set_max_streams(self, number: int) -> None:
        self.state.update_settings({MAX_STREAMS: number})
        await self.flush()

    async def goaway(self, last: int, code: int = 0) -> None:
        """Say that no stream after ``last`` was, or will be, processed; those up to it go on."""
        frame = b"\0\0\x08\x07\0\0\0\0\0" + last.to_bytes(4, "big") + code.to_bytes(4, "big")
        await self.send_raw(frame)

    async def send_raw(self, frame: bytes) -> None:
        """Send a frame that h2 need not know of."""
        async with self._sending:
            await self.stream.send_all(frame)

    async def flush(self) -> None:
        async with self._sending:
            if data := self.state.data_to_send():
                await self.stream.send_all(data)

    async def more_room(self) -> None:
        """Wait until the client has opened a window further."""
        self._room = trio.Event() if self._room.is_set() else self._room
        await self._room.wait()

    async def _serve(self, handle: Callable[[Stream], Awaitable[object]], stream: Stream) -> None:
        try:
            await handle(stream)
        except h2.exceptions.ProtocolError:  # the client reset the stream, or closed the connection
            if stream.reset_by_client is None and not self.goaway_by_client:
                raise

    def _note(self, event: h2.events.Event) -> Stream | None:
        match event:
            case h2.events.RequestReceived():
                return self._begin(event)
            case h2.events.DataReceived():
                self._take(self.streams[event.stream_id], event)
            case h2.events.StreamEnded():
                self.streams[event.stream_id].ended.set()
            case h2.events.StreamReset():
                stream = self.streams[event.stream_id]
                stream.reset_by_client = int(event.error_code or 0)
                stream.ended.set()
                self._room.set()
            case h2.events.ConnectionTerminated():
                self.goaway_by_client = True
                self._room.set()
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._room.set()
            case _:
                pass
        return None

    def _take(self, stream: Stream, event: h2.events.DataReceived) -> None:
        if stream.reads:
            stream.body += event.data or b""
            self.state.acknowledge_received_data(event.flow_controlled_length or 0, stream.number)

    def _begin(self, event: h2.events.RequestReceived) -> Stream:
        headers = {_text(name): _text(value) for name, value in event.headers or []}
        self.streams[event.stream_id] = stream = Stream(self, event.stream_id, headers)
        return stream


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()


@dataclass
class Origin:
    """An HTTP/2 server and who has visited it."""

    server: Server
    visitors: list[Visitor] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.server.url


@asynccontextmanager
async def http2_serving(
    handle: Callable[[Stream], Awaitable[object]] | None = None,
    *,
    max_streams: int | None = 100,
    greet: bool = True,
    **options: Option,
) -> AsyncGenerator[Origin]:
    """Answer every request with ``await handle(stream)``, by default with "ok".

    Args:
        handle: is called as soon as the headers are there.
        max_streams: what the server announces; ``None`` for nothing.
        greet: whether the server sends its SETTINGS at all.
        options: see `serving`; without ``tls``, clients must know that it is HTTP/2.
    """
    visitors: list[Visitor] = []
    streams: list[Stream] = []

    async def note_and_handle(stream: Stream) -> None:
        streams.append(stream)
        if handle is not None:
            await handle(stream)
        else:
            await stream.ended.wait()
            await stream.answer()

    async def visit(stream: trio.abc.Stream) -> None:
        visitor = Visitor(stream, len(visitors) + 1, max_streams)
        visitors.append(visitor)
        await visitor.run(note_and_handle, greet)

    async with serving(visit, **options) as server:
        yield Origin(server, visitors, streams)
