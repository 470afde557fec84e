"""Hypercorn on trio, and the application that the tests ask: one path for each kind of answer."""

from __future__ import annotations

import gzip
import json
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config, Sockets
from hypercorn.trio.run import worker_serve

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Awaitable, Callable

Scope: TypeAlias = dict[str, Any]
Receive: TypeAlias = "Callable[[], Awaitable[dict[str, Any]]]"
Send: TypeAlias = "Callable[[dict[str, Any]], Awaitable[None]]"
CHUNK: Final = b"0123456789abcdef" * 256
"""What ``/stream/n`` sends n times: 4 KiB."""


class Site:
    """A running Hypercorn.

    Invariant: clients holds the address of every connection that a request has come over
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.clients: set[tuple[str, int]] = set()
        self.requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Be the application."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        self.requests += 1
        self.clients.add(tuple(scope["client"][:2]))
        _, kind, *rest = scope["path"].split("/")
        await _ANSWERS[kind](scope, receive, send, *rest)


async def _live(receive: Receive, send: Send) -> None:
    for stage in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{stage}.complete"})


async def _begin(send: Send, status: int, *headers: tuple[str, str]) -> None:
    encoded = [(name.encode(), value.encode()) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": encoded})


async def _end(send: Send, body: bytes = b"") -> None:
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _read(receive: Receive) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return body
        body += bytes(message.get("body", b""))
        if not message.get("more_body"):
            return body


async def _echo(scope: Scope, receive: Receive, send: Send, *_: str) -> None:
    """Say what was asked."""
    body = await _read(receive)
    seen = {
        "method": scope["method"],
        "path": scope["path"],
        "query": scope["query_string"].decode(),
        "version": scope["http_version"],
        "headers": {name.decode(): value.decode("latin-1") for name, value in scope["headers"]},
        "body": body.decode("latin-1"),
    }
    content = json.dumps(seen).encode()
    await _begin(send, 200, ("content-type", "application/json"), ("content-length", str(len(content))))
    await _end(send, b"" if scope["method"] == "HEAD" else content)


async def _size(scope: Scope, receive: Receive, send: Send, *_: str) -> None:
    """Say how long the body was."""
    body = str(len(await _read(receive))).encode()
    await _begin(send, 200, ("content-length", str(len(body))))
    await _end(send, body)


async def _stream(scope: Scope, receive: Receive, send: Send, count: str) -> None:
    """Send `CHUNK` so many times, without saying how often."""
    await _begin(send, 200)
    for _ in range(int(count)):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await _end(send)


async def _gzip(scope: Scope, receive: Receive, send: Send, text: str) -> None:
    body = gzip.compress(text.encode() * 1000)
    await _begin(send, 200, ("content-encoding", "gzip"), ("content-length", str(len(body))))
    await _end(send, body)


async def _status(scope: Scope, receive: Receive, send: Send, status: str) -> None:
    """Answer with a status and no body."""
    await _begin(send, int(status), *([] if status in {"204", "304"} else [("content-length", "0")]))
    await _end(send)


async def _redirect(scope: Scope, receive: Receive, send: Send, status: str, times: str) -> None:
    """Redirect so many times, and then to /echo."""
    await _read(receive)
    left = int(times) - 1
    await _begin(
        send,
        int(status),
        ("location", f"/redirect/{status}/{left}" if left > 0 else "/echo"),
        ("content-length", "5"),
    )
    await _end(send, b"moved")


async def _events(scope: Scope, receive: Receive, send: Send, *_: str) -> None:
    """Send server-sent events until the client goes."""
    await _begin(send, 200, ("content-type", "text/event-stream"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_pulse, send)
        while (await receive())["type"] != "http.disconnect":
            pass
        nursery.cancel_scope.cancel()


async def _pulse(send: Send) -> None:
    for number in range(10**9):
        await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
        await trio.sleep(0.005)


async def _slow(scope: Scope, receive: Receive, send: Send, seconds: str) -> None:
    await trio.sleep(float(seconds))
    await _begin(send, 200, ("content-length", "4"))
    await _end(send, b"slow")


_ANSWERS: Final[dict[str, Any]] = {
    "echo": _echo,
    "size": _size,
    "stream": _stream,
    "gzip": _gzip,
    "status": _status,
    "redirect": _redirect,
    "events": _events,
    "slow": _slow,
}


class _TLSConfig(Config):
    """A Hypercorn configuration that takes a ready TLS context: its own wants files."""

    context: ssl.SSLContext | None = None

    def create_ssl_context(self) -> ssl.SSLContext | None:
        return self.context


@asynccontextmanager
async def web_serving(tls: ssl.SSLContext | None = None) -> AsyncGenerator[Site]:
    """Serve the application on a free port: HTTP/1.1, and HTTP/2 for those who know it or ask for it by ALPN."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    sock.listen(512)
    config = _TLSConfig()
    config.context = tls
    config.accesslog = config.errorlog = None
    config.graceful_timeout = config.shutdown_timeout = 0.05
    sockets = Sockets([sock], [], []) if tls is not None else Sockets([], [sock], [])
    port = sock.getsockname()[1]
    site = Site(f"http://127.0.0.1:{port}" if tls is None else f"https://localhost:{port}")
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        wrapper = ASGIWrapper(cast("Any", site))

        async def serve(task_status: trio.TaskStatus[Any]) -> None:
            await worker_serve(wrapper, config, sockets=sockets, shutdown_trigger=stop.wait, task_status=task_status)

        await nursery.start(serve)
        try:
            yield site
        finally:
            stop.set()
            nursery.cancel_scope.deadline = trio.current_time() + 2.0
