"""A reverse proxy on Hypercorn and trio that streams both ways, and shares one pool of connections to its upstream.

    pip install 'nimblepool[http]' 'hypercorn[trio]'
    python examples/reverse_proxy.py http://127.0.0.1:3000 --port 8000
    curl http://127.0.0.1:8000/
    curl http://127.0.0.1:8000/pool

`/pool` tells the pool's figures; everything else is asked of the upstream. Upgrades (WebSocket) are left out: the
upstream sees an ordinary request. On SIGTERM or Ctrl-C it takes no more connections, finishes the requests in flight,
and closes the pool.
"""

from __future__ import annotations

import argparse
import json
from contextlib import aclosing
from dataclasses import asdict
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from signal import SIGINT, SIGTERM
from typing import TYPE_CHECKING, Self

import httpx
import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from nimblepool_http import PooledTransport

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope

LIMITS = httpx.Limits(max_connections=50, max_keepalive_connections=50, keepalive_expiry=30.0)
TIMEOUT = httpx.Timeout(connect=5.0, read=60.0, write=60.0, pool=10.0)
GRACE = 20.0
"""Seconds that the requests in flight may take when the proxy is told to stop."""

Headers = list[tuple[bytes, bytes]]
HOP_BY_HOP = frozenset({
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te", b"trailer",
    b"transfer-encoding", b"upgrade",
})  # fmt: skip
"""They concern one connection, and are not passed on (RFC 9110, section 7.6.1)."""


# -- headers ------------------------------------------------------------------------------------------------------


def end_to_end(headers: Iterable[tuple[bytes, bytes]], *others: bytes) -> Headers:
    """Leave out what concerns one connection only, what its Connection header names, and ``others``."""
    headers = [(name.lower(), value) for name, value in headers]
    named = {token.strip().lower() for name, value in headers if name == b"connection" for token in value.split(b",")}
    dropped = HOP_BY_HOP | named | set(others)
    return [(name, value) for name, value in headers if name not in dropped]


def request_headers(scope: HTTPScope) -> Headers:
    """Return what the upstream is sent. It is told who asks, and for which host; httpx adds its own host."""
    # Hypercorn has answered "Expect: 100-continue" itself.
    headers = end_to_end(scope["headers"], b"host", b"expect")
    headers += [(b"x-forwarded-host", value) for name, value in scope["headers"] if name == b"host"]
    headers.append((b"x-forwarded-proto", scope["scheme"].encode()))
    if scope["client"] is not None:
        headers.append((b"x-forwarded-for", scope["client"][0].encode()))
    return headers


# -- one request --------------------------------------------------------------------------------------------------


class Visit:
    """One request of a client's; iterating yields its body, as it is received.

    Invariant: received is set once all of the body has been, or nobody is there to send more
    """

    def __init__(self, receive: ASGIReceiveCallable) -> None:
        self.receive = receive
        self.first = b""
        self.received = trio.Event()

    async def begin(self) -> None:
        """Receive the beginning of the body: only then can be said whether there is one."""
        self.first = await self.next_part()

    @property
    def has_body(self) -> bool:
        """Whether the request has a body."""
        return bool(self.first) or not self.received.is_set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self.first:
            first, self.first = self.first, b""
            return first
        if self.received.is_set():
            raise StopAsyncIteration
        return await self.next_part()

    async def next_part(self) -> bytes:
        """Receive a part of the body.

        Raises:
            ConnectionError: the client has gone, and will not send the rest.
        """
        message = await self.receive()
        if message["type"] != "http.request":
            raise ConnectionError("the client has gone")
        if not message["more_body"]:
            self.received.set()
        return message["body"]

    async def until_gone(self) -> None:
        """Wait until the client has gone."""
        await self.received.wait()
        while (await self.receive())["type"] != "http.disconnect":
            pass


class Answer:
    """The response to one request, as far as it has been sent.

    Invariants:
        begun is true once the status was sent, and no other can be
        ended is true once the last part is being sent, and nothing is left that could be given up
    """

    def __init__(self, send: ASGISendCallable) -> None:
        self.send = send
        self.begun = False
        self.ended = False

    async def begin(self, status: int, headers: Headers) -> None:
        """Send the status and the headers."""
        self.begun = True
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def go_on(self, part: bytes) -> None:
        """Send a part of the body; it returns when there is room for more."""
        await self.send({"type": "http.response.body", "body": part, "more_body": True})

    async def end(self, part: bytes = b"") -> None:
        """Send the last part of the body."""
        self.ended = True
        await self.send({"type": "http.response.body", "body": part, "more_body": False})

    async def tell(self, status: int, facts: dict[str, object]) -> None:
        """Send a whole answer of the proxy's own."""
        await self.begin(status, [(b"content-type", b"application/json")])
        await self.end(json.dumps(facts).encode() + b"\n")

    async def fail(self, status: int, error: Exception) -> None:
        """Tell what is wrong.

        When half of another answer was sent it cannot be told; then nothing more is, and Hypercorn, which misses the
        end, breaks off the connection: the client must not take a half for the whole.
        """
        if not self.begun:
            await self.tell(status, {"error": f"{type(error).__name__}: {error}"})


# -- the app ------------------------------------------------------------------------------------------------------


class Proxy:
    """An ASGI application; its pool is open between startup and shutdown."""

    def __init__(self, upstream: str) -> None:
        self.upstream = httpx.URL(upstream)
        self.transport = PooledTransport(limits=LIMITS)
        # A proxy keeps nobody's cookies.
        cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        self.client = httpx.AsyncClient(transport=self.transport, cookies=cookies)

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve the lifespan or one request."""
        if scope["type"] == "lifespan":
            await self.live(receive, send)
        elif scope["type"] == "http" and scope["path"] == "/pool":
            await Answer(send).tell(200, {origin: asdict(stats) for origin, stats in self.transport.stats.items()})
        elif scope["type"] == "http":
            await self.serve(scope, Visit(receive), Answer(send))

    async def live(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Keep the pool open until the server shuts down, which it does when the last request has ended."""
        await receive()
        async with self.client:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def serve(self, scope: HTTPScope, visit: Visit, answer: Answer) -> None:
        """Serve one request, for as long as there is somebody who wants the answer."""
        async with trio.open_nursery() as nursery:

            async def give_up() -> None:
                await visit.until_gone()
                # Hypercorn says so after each answer, too, while it is sending the end of it.
                if not answer.ended:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(give_up)
            await self.serve_with_errors(scope, visit, answer)
            nursery.cancel_scope.cancel()

    async def serve_with_errors(self, scope: HTTPScope, visit: Visit, answer: Answer) -> None:
        """Pass the request on, and tell the client what is wrong if that fails."""
        try:
            await visit.begin()
            await self.forward(self.translate(scope, visit), answer)
        except ConnectionError:
            pass  # the client has gone: nobody is there to be told
        except httpx.PoolTimeout as error:
            await answer.fail(503, error)
        except httpx.TimeoutException as error:
            await answer.fail(504, error)
        except httpx.TransportError as error:
            await answer.fail(502, error)

    def translate(self, scope: HTTPScope, visit: Visit) -> httpx.Request:
        """Return the request that the upstream gets. No default of the client's is added to it."""
        query = scope["query_string"]
        target = scope["raw_path"] + (b"?" + query if query else b"")
        return httpx.Request(
            scope["method"],
            self.upstream,
            headers=request_headers(scope),
            content=visit if visit.has_body else None,
            extensions={"target": target, "timeout": TIMEOUT.as_dict()},
        )

    async def forward(self, request: httpx.Request, answer: Answer) -> None:
        """Pass on the request and its response, part by part.

        Raises:
            httpx.TransportError: the upstream fails.
            ConnectionError: the client does.
        """
        response = await self.client.send(request, stream=True)
        # Whatever happens, the connection is given back here: that is what closing a response means.
        async with aclosing(response):
            await answer.begin(response.status_code, end_to_end(response.headers.raw))
            async for part in response.aiter_raw():
                await answer.go_on(part)
            await answer.end()


# -- the server ---------------------------------------------------------------------------------------------------


async def main(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or Ctrl-C, and until the last request has ended."""
    config = Config()
    config.bind = [f"127.0.0.1:{options.port}"]
    config.graceful_timeout = GRACE
    config.include_server_header = config.include_date_header = False  # the upstream's are passed on
    with trio.open_signal_receiver(SIGINT, SIGTERM) as signals:

        async def stop() -> None:
            print(f"finishing the requests in flight after signal {await anext(signals)}", flush=True)

        async with trio.open_nursery() as nursery:
            binds = await nursery.start(partial(serve, Proxy(options.upstream), config, shutdown_trigger=stop))
            print(f"listening on {binds[0]}", flush=True)
    print("closed", flush=True)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("upstream", help="the server that is asked, http://host:port")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one, and says which (8000)")
    return parser.parse_args()


if __name__ == "__main__":
    trio.run(main, parse())
