"""HTTP/1.1 servers whose answers a test writes byte by byte."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import h11
import trio

from tests.http.servers.listening import Option, Server, serving

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Request:
    """What a server received."""

    method: str
    target: str
    version: str
    headers: dict[str, str]
    body: bytes = b""


class Visitor:
    """One connection, as its server sees it."""

    def __init__(self, stream: trio.abc.Stream, number: int) -> None:
        self.stream = stream
        self.number = number
        self._unread = b""

    async def request(self) -> Request | None:
        """Return the next request, body and all; ``None`` when the client has closed the connection."""
        head = await self.head()
        if head is not None:
            while chunk := await self.chunk():
                head.body += chunk
        return head

    async def head(self) -> Request | None:
        """Return the next request without its body, which `chunk` reads."""
        self._parser = h11.Connection(h11.SERVER)
        if self._unread:
            self._parser.receive_data(self._unread)
        event = await self._next()
        if not isinstance(event, h11.Request):
            return None
        return Request(
            method=event.method.decode(),
            target=event.target.decode(),
            version=event.http_version.decode(),
            headers={name.decode(): value.decode("latin-1") for name, value in event.headers},
        )

    async def chunk(self) -> bytes:
        """Return a piece of the body of the request whose `head` was read; nothing at its end."""
        event = await self._next()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        self._unread = self._parser.trailing_data[0]
        return b""

    async def send(self, *parts: bytes) -> None:
        await self.stream.send_all(b"".join(parts))

    async def answer(self, body: bytes = b"ok", *headers: str, status: str = "200 OK") -> None:
        """Send a whole response."""
        head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers])
        await self.send(head.encode(), b"\r\n\r\n", body)

    async def until_gone(self) -> None:
        """Read until the client has closed the connection."""
        while await self.stream.receive_some(65_536):
            pass

    async def _next(self) -> type[h11.NEED_DATA | h11.PAUSED] | h11.Event:
        while (event := self._parser.next_event()) is h11.NEED_DATA:
            data = await self.stream.receive_some(65_536)
            if not data and self._parser.their_state is h11.SEND_BODY:
                raise trio.BrokenResourceError("the client has gone in mid-request")
            self._parser.receive_data(bytes(data))
        return event


@dataclass
class Origin:
    """An HTTP/1.1 server and what it has received."""

    server: Server
    requests: list[Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def targets(self) -> list[str]:
        return [request.target for request in self.requests]


@asynccontextmanager
async def scripted(script: Callable[[Visitor], Awaitable[object]], **options: Option) -> AsyncGenerator[Server]:
    """Serve each connection with ``await script(visitor)``; see `serving` for the options."""
    count = 0

    async def handle(stream: trio.abc.Stream) -> None:
        nonlocal count
        count += 1
        await script(Visitor(stream, count))

    async with serving(handle, **options) as server:
        yield server


@asynccontextmanager
async def answering(
    answer: Callable[[Visitor, Request], Awaitable[object]] | None = None, **options: Option
) -> AsyncGenerator[Origin]:
    """Answer every request with ``await answer(visitor, request)``, by default with "ok", and keep connections alive.

    An answer of ``False`` ends the connection.
    """
    requests: list[Request] = []

    async def script(visitor: Visitor) -> None:
        while (request := await visitor.request()) is not None:
            requests.append(request)
            if answer is None:
                await visitor.send(OK)
            elif await answer(visitor, request) is False:
                return

    async with scripted(script, **options) as server:
        yield Origin(server, requests)
