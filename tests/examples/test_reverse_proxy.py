"""The proxy as its clients, its upstream and its supervisor see it: from outside, over HTTP and signals."""

from __future__ import annotations

import gzip
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from tests.http.servers.http1 import OK, Request, Visitor, answering, scripted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

PROXY = Path(__file__).parents[2] / "examples" / "reverse_proxy.py"
PATIENCE = 15.0


@dataclass
class Running:
    """A proxy in a process of its own."""

    process: trio.Process
    client: httpx.AsyncClient
    upstream: str

    async def stats(self) -> dict[str, Any]:
        """Return the figures of the one pool; none before the first request."""
        pools: dict[str, dict[str, Any]] = (await self.client.get("/pool")).json()
        return pools.get(self.upstream, {})


async def first_line(stream: trio.abc.ReceiveStream | None) -> str:
    assert stream is not None
    line = b""
    while not line.endswith(b"\n"):
        part = await stream.receive_some()
        assert part, "it has ended"
        line += part
    return line.decode().strip()


@asynccontextmanager
async def proxying(upstream: str) -> AsyncGenerator[Running]:
    command = [sys.executable, "-W", "error", str(PROXY), upstream, "--port", "0"]
    with trio.fail_after(PATIENCE):
        process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            line = await first_line(process.stdout)
            async with httpx.AsyncClient(base_url=line.split()[-1], timeout=PATIENCE, trust_env=False) as client:
                yield Running(process, client, upstream)
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                for stream in (process.stdout, process.stderr):
                    assert stream is not None
                    await stream.aclose()


async def test_a_request_and_its_answer_come_through_as_they_are() -> None:
    body = gzip.compress(b"hello")

    async def answer(visitor: Visitor, _request: Request) -> None:
        headers = ("Set-Cookie: a=1", "Set-Cookie: b=2", "Content-Encoding: gzip", "Connection: X-Hop", "X-Hop: 1")
        await visitor.answer(body, *headers, status="418 I'm a teapot")

    async with answering(answer) as origin, proxying(origin.url) as proxy:
        headers = {"X-Mine": "1", "Connection": "X-Secret", "X-Secret": "2", "TE": "trailers"}
        async with proxy.client.stream("PUT", "/a%2Fb/c?d=%20&e", headers=headers, content=b"up") as response:
            raw = b"".join([part async for part in response.aiter_raw()])
        assert (response.status_code, raw) == (418, body)
        assert response.headers.get_list("set-cookie") == ["a=1", "b=2"]
        assert "x-hop" not in response.headers
        (request,) = origin.requests
        assert (request.method, request.body) == ("PUT", b"up")
        assert request.target == "/a%2Fb/c?d=%20&e"
        seen = request.headers
        assert (seen["x-mine"], seen["content-length"], seen["x-forwarded-for"]) == ("1", "2", "127.0.0.1")
        assert (seen["host"], seen["x-forwarded-host"]) == (
            origin.url.removeprefix("http://"),
            response.request.headers["host"],
        )
        assert {"x-secret", "te", "transfer-encoding"} & set(seen) == set()


async def test_nothing_is_added_to_a_bare_request() -> None:
    async with answering() as origin, proxying(origin.url) as proxy:
        request = httpx.Request("GET", proxy.client.base_url)
        assert (await proxy.client.send(request)).text == "ok"
        forwarded = {"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"}
        assert set(origin.requests[0].headers) == {"host"} | forwarded


async def test_the_parts_of_an_answer_are_passed_on_as_they_come() -> None:
    proceed = trio.Event()

    async def answer(visitor: Visitor, _request: Request) -> None:
        await visitor.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
        await proceed.wait()
        await visitor.send(b"later")

    async with answering(answer) as origin, proxying(origin.url) as proxy, proxy.client.stream("GET", "/") as response:
        parts = response.aiter_raw()
        assert await anext(parts) == b"first"
        proceed.set()
        assert [part async for part in parts] == [b"later"]


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "10"}], ids=["chunked", "of known length"])
async def test_the_parts_of_a_request_are_passed_on_as_they_come(headers: dict[str, str]) -> None:
    proceed = trio.Event()
    received: list[bytes] = []
    heads: list[Request] = []

    async def script(visitor: Visitor) -> None:
        head = await visitor.head()
        assert head is not None
        heads.append(head)
        while part := await visitor.chunk():
            received.append(part)
            proceed.set()
        await visitor.send(OK)

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await proceed.wait()
        yield b"later"

    async with scripted(script) as server, proxying(server.url) as proxy:
        assert (await proxy.client.post("/", content=body(), headers=headers)).text == "ok"
        assert received == [b"first", b"later"]
        assert heads[0].headers.get("content-length") == headers.get("Content-Length")


async def test_requests_share_the_pool_and_it_tells_its_figures() -> None:
    async with answering() as origin, proxying(origin.url) as proxy:
        assert await proxy.stats() == {}
        for _ in range(20):
            assert (await proxy.client.get("/")).text == "ok"
        stats = await proxy.stats()
        assert (origin.server.accepted, stats["opened"], stats["started"], stats["leases"]) == (1, 1, 20, 0)
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(proxy.client.get, "/")
        stats = await proxy.stats()
        assert (len(origin.requests), stats["started"], stats["leases"]) == (120, 120, 0)
        assert origin.server.most_at_once <= 50


async def test_a_client_that_goes_away_ends_its_request_upstream() -> None:
    async def endless(visitor: Visitor, _request: Request) -> None:
        await visitor.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await visitor.until_gone()

    async with answering(endless) as origin, proxying(origin.url) as proxy:
        async with await trio.open_tcp_stream("127.0.0.1", proxy.client.base_url.port or 0) as client:
            await client.send_all(b"GET / HTTP/1.1\r\nHost: proxy\r\n\r\n")
            seen = b""
            while b"data: 1" not in seen:
                seen += await client.receive_some()
            assert (await proxy.stats())["leases"] == 1
        await origin.server.until_empty()
        stats = await proxy.stats()
        assert (stats["leases"], stats["size"]) == (0, 0)


async def test_a_client_that_goes_away_in_mid_request_ends_it_upstream() -> None:
    heads: list[Request] = []

    async def script(visitor: Visitor) -> None:
        head = await visitor.head()
        assert head is not None
        heads.append(head)
        await visitor.until_gone()

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await trio.sleep_forever()

    async with scripted(script) as server, proxying(server.url) as proxy:
        async with trio.open_nursery() as nursery:

            async def post() -> None:
                await proxy.client.post("/", content=body())

            nursery.start_soon(post)
            await server.until(lambda: heads)
            nursery.cancel_scope.cancel()
        await server.until_empty()


async def test_an_upstream_that_is_down_is_a_bad_gateway() -> None:
    async with scripted(Visitor.until_gone) as server:
        url = server.url
    async with proxying(url) as proxy:
        response = await proxy.client.get("/")
        assert response.status_code == 502
        assert response.json()["error"].startswith("ConnectError: ")


async def test_half_an_answer_is_not_passed_off_as_a_whole() -> None:
    async def half(visitor: Visitor, _request: Request) -> bool:
        await visitor.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        return False

    async with answering(half) as origin, proxying(origin.url) as proxy:
        with pytest.raises(httpx.RemoteProtocolError):
            await proxy.client.get("/")
        assert (await proxy.stats())["leases"] == 0


async def test_sigterm_finishes_the_requests_in_flight_and_closes_the_pool() -> None:
    proceed = trio.Event()

    async def late(visitor: Visitor, request: Request) -> None:
        if request.target == "/late":
            await proceed.wait()
        await visitor.answer(b"late")

    async with answering(late) as origin, proxying(origin.url) as proxy:
        answers: list[str] = []

        async def ask() -> None:
            answers.append((await proxy.client.get("/late")).text)

        async def proceed_soon() -> None:
            await first_line(proxy.process.stdout)
            assert answers == []
            proceed.set()

        await proxy.client.get("/")
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
            await origin.server.until(lambda: len(origin.requests) == 4)
            proxy.process.send_signal(signal.SIGTERM)
            await proceed_soon()
        assert answers == ["late"] * 3
        assert await proxy.process.wait() == 0
        assert await first_line(proxy.process.stdout) == "closed"
        await origin.server.until_empty()
