"""Proxies that work: HTTP (forwarding and CONNECT, with and without TLS and a password), and SOCKS5."""

from __future__ import annotations

import base64
import ipaddress
import struct
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import h11
import trio

from tests.http.servers.http1 import Request, Visitor, scripted
from tests.http.servers.listening import GONE, Option, Server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

PRIVATE = {"proxy-authorization", "proxy-connection", "connection"}


@dataclass
class Proxy:
    """A proxy and what it was asked for."""

    server: Server
    requests: list[Request] = field(default_factory=list)
    asked: list[tuple[str, int]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def address(self) -> str:
        return f"{self.server.host}:{self.server.port}"


@asynccontextmanager
async def http_proxy(password: str | None = None, **options: Option) -> AsyncGenerator[Proxy]:
    """Serve an HTTP proxy; with a ``password`` ("user:secret") it refuses who does not give it."""
    proxy = Proxy(Server(0))

    async def script(visitor: Visitor) -> None:
        while (request := await visitor.request()) is not None:
            proxy.requests.append(request)
            if not _is_allowed(request, password):
                await visitor.answer(b"who are you?", status="407 Proxy Authentication Required")
            elif request.method == "CONNECT":
                await _tunnel(visitor, request)
                return
            else:
                await _forward(visitor, request)

    async with scripted(script, **options) as proxy.server:
        yield proxy


def _is_allowed(request: Request, password: str | None) -> bool:
    if password is None:
        return True
    return request.headers.get("proxy-authorization") == f"Basic {base64.b64encode(password.encode()).decode()}"


async def _tunnel(visitor: Visitor, request: Request) -> None:
    host, _, port = request.target.rpartition(":")
    try:
        upstream = await trio.open_tcp_stream(host, int(port))
    except OSError:
        await visitor.answer(b"", status="502 Bad Gateway")
        return
    await visitor.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
    async with upstream:
        await _pump_both(visitor.stream, upstream)


async def _forward(visitor: Visitor, request: Request) -> None:
    url = urlsplit(request.target)
    assert url.hostname is not None, f"not an absolute target: {request.target}"
    headers = [(name, value) for name, value in request.headers.items() if name not in PRIVATE]
    state = h11.Connection(h11.CLIENT)
    async with await trio.open_tcp_stream(url.hostname, url.port or 80) as upstream:
        path = f"{url.path or '/'}{'?' if url.query else ''}{url.query}"
        await _send(upstream, state, h11.Request(method=request.method, target=path, headers=headers))
        if request.body:
            await _send(upstream, state, h11.Data(data=request.body))
        await _send(upstream, state, h11.EndOfMessage())
        response, body = await _receive(upstream, state)
    extra = [f"{name.decode()}: {value.decode()}" for name, value in response.headers if name != b"content-length"]
    await visitor.answer(body, *extra, "Via: 1.1 test", status=f"{response.status_code} {response.reason.decode()}")


async def _send(stream: trio.SocketStream, state: h11.Connection, event: h11.Event) -> None:
    data = state.send(event)
    assert data is not None
    await stream.send_all(data)


async def _receive(stream: trio.SocketStream, state: h11.Connection) -> tuple[h11.Response, bytes]:
    body = b""
    response: h11.Response | None = None
    while True:
        event = state.next_event()
        if event is h11.NEED_DATA:
            state.receive_data(await stream.receive_some(65_536))
        elif isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data):
            body += event.data
        else:
            assert response is not None, event
            return response, body


async def _pump_both(left: trio.abc.Stream, right: trio.abc.Stream) -> None:
    async def pump(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
        try:
            while data := await source.receive_some(65_536):
                await sink.send_all(data)
        except GONE:
            pass
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump, left, right)
        nursery.start_soon(pump, right, left)


@asynccontextmanager
async def socks5_proxy(password: str | None = None) -> AsyncGenerator[Proxy]:
    """Serve a SOCKS5 proxy (RFC 1928 and 1929), CONNECT only."""
    proxy = Proxy(Server(0))

    async def script(visitor: Visitor) -> None:
        stream = _Reader(visitor.stream)
        _, count = await stream.take(2)
        methods = await stream.take(count)
        method = 0 if password is None else 2
        if method not in methods:
            await visitor.send(b"\x05\xff")
            return
        await visitor.send(bytes([5, method]))
        if password is not None and not await _subnegotiate(visitor, stream, password):
            return
        address = await _read_address(stream)
        proxy.asked.append(address)
        try:
            upstream = await trio.open_tcp_stream(*address)
        except OSError:
            await visitor.send(b"\x05\x05\0\x01\0\0\0\0\0\0")
            return
        await visitor.send(b"\x05\0\0\x01\0\0\0\0\0\0")
        async with upstream:
            await _pump_both(visitor.stream, upstream)

    async with scripted(script) as proxy.server:
        yield proxy


class _Reader:
    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._unread = b""

    async def take(self, count: int) -> bytes:
        while len(self._unread) < count:
            data = await self._stream.receive_some(4096)
            if not data:
                raise trio.BrokenResourceError
            self._unread += data
        taken, self._unread = self._unread[:count], self._unread[count:]
        return taken


async def _subnegotiate(visitor: Visitor, stream: _Reader, password: str) -> bool:
    await stream.take(1)
    user = await stream.take((await stream.take(1))[0])
    secret = await stream.take((await stream.take(1))[0])
    allowed = f"{user.decode()}:{secret.decode()}" == password
    await visitor.send(b"\x01\0" if allowed else b"\x01\x01")
    return allowed


async def _read_address(stream: _Reader) -> tuple[str, int]:
    _, _, _, kind = await stream.take(4)
    if kind == 3:
        host = (await stream.take((await stream.take(1))[0])).decode()
    else:
        host = str(ipaddress.ip_address(await stream.take(4 if kind == 1 else 16)))
    (port,) = struct.unpack("!H", await stream.take(2))
    return host, port
