"""Whatever httpx's users send and receive comes through as it does with httpx's own transport, from a real server."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.http.figures import leases
from tests.http.servers.web import CHUNK, Site, web_serving

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from tests.http.pairs import Client, Pair, Transport
    from tests.http.servers.tls import Certificates

# name: whether over TLS, the options of the transport, the version that is spoken
PROTOCOLS: dict[str, tuple[bool, dict[str, Any], str]] = {
    "http/1.1": (False, {}, "HTTP/1.1"),
    "http/1.1 over TLS": (True, {}, "HTTP/1.1"),
    "http/2 over TLS": (True, {"http2": True}, "HTTP/2"),
    "http/2 prior knowledge": (False, {"http1": False, "http2": True}, "HTTP/2"),
}


@dataclass
class Setting:
    site: Site
    client: Client
    transport: Transport
    version: str


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@asynccontextmanager
async def asking(pair: Pair, protocol: str, certificates: Certificates, **client: object) -> AsyncGenerator[Setting]:
    over_tls, options, version = PROTOCOLS[protocol]
    tls = certificates.server("h2", "http/1.1") if over_tls else None
    transport = pair.transport(verify=certificates.client(), **options)
    async with (
        web_serving(tls) as site,
        pair.httpx.AsyncClient(transport=transport, base_url=site.url, timeout=10.0, **client) as asker,
    ):
        yield Setting(site, asker, transport, version)
        assert leases(transport) == 0


async def chunks(count: int, size: int = 10_000) -> AsyncIterator[bytes]:
    for _ in range(count):
        await trio.lowlevel.checkpoint()
        yield b"x" * size


async def test_every_method_comes_through(pair: Pair, protocol: str, certificates: Certificates) -> None:
    async with asking(pair, protocol, certificates) as it:
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"):
            response = await it.client.request(method, "/echo", params={"n": "1 2"})
            assert (response.status_code, response.http_version) == (200, it.version)
            seen = response.json()
            assert (seen["method"], seen["path"], seen["query"]) == (method, "/echo", "n=1+2")
        assert len(it.site.clients) == 1


async def test_headers_and_body_come_through(pair: Pair, protocol: str, certificates: Certificates) -> None:
    async with asking(pair, protocol, certificates, headers={"X-Client": "everywhere"}) as it:
        response = await it.client.post("/echo", content=b"\0\xff body", headers={"X-Mine": "a", "Cookie": "c=d"})
        seen = response.json()
        assert seen["body"] == "\0\xff body"
        assert seen["headers"]["x-client"] == "everywhere"
        assert (seen["headers"]["x-mine"], seen["headers"]["cookie"]) == ("a", "c=d")
        assert seen["headers"]["content-length"] == "7"


async def test_a_body_is_streamed_up(pair: Pair, protocol: str, certificates: Certificates) -> None:
    async with asking(pair, protocol, certificates) as it:
        response = await it.client.post("/size", content=chunks(100))
        assert response.text == "1000000"
        response = await it.client.put("/size", content=chunks(0))
        assert response.text == "0"
        assert len(it.site.clients) == 1


async def test_a_body_is_streamed_down(pair: Pair, protocol: str, certificates: Certificates) -> None:
    async with asking(pair, protocol, certificates) as it:
        async with it.client.stream("GET", "/stream/256") as response:
            assert leases(it.transport) == 1
            length = 0
            async for chunk in response.aiter_raw():
                length += len(chunk)
            assert length == 256 * len(CHUNK)
        async with it.client.stream("GET", "/stream/8") as response:
            assert await response.aread() == CHUNK * 8
        assert len(it.site.clients) == 1


async def test_a_compressed_body_is_decoded(pair: Pair, protocol: str, certificates: Certificates) -> None:
    async with asking(pair, protocol, certificates) as it:
        response = await it.client.get("/gzip/word")
        assert response.text == "word" * 1000
        assert response.headers["content-encoding"] == "gzip"


@pytest.mark.parametrize("status", [204, 304, 200, 404, 503])
async def test_an_answer_without_a_body_ends_at_once(
    pair: Pair, protocol: str, certificates: Certificates, status: int
) -> None:
    async with asking(pair, protocol, certificates) as it:
        for _ in range(3):
            response = await it.client.get(f"/status/{status}")
            assert (response.status_code, response.content) == (status, b"")
        assert len(it.site.clients) == 1


async def test_head_ends_at_once(pair: Pair, protocol: str, certificates: Certificates) -> None:
    async with asking(pair, protocol, certificates) as it:
        for _ in range(3):
            response = await it.client.head("/echo")
            assert (response.status_code, response.content) == (200, b"")
            assert int(response.headers["content-length"]) > 10
        assert len(it.site.clients) == 1


@pytest.mark.parametrize(("status", "method"), [(302, "GET"), (307, "POST")])
async def test_redirects_are_followed_on_the_same_connection(
    pair: Pair, protocol: str, certificates: Certificates, status: int, method: str
) -> None:
    async with asking(pair, protocol, certificates, follow_redirects=True) as it:
        response = await it.client.post(f"/redirect/{status}/3", content=b"kept")
        assert (response.json()["method"], len(response.history)) == (method, 3)
        assert response.json()["body"] == ("kept" if status == 307 else "")
        assert len(it.site.clients) == 1


async def test_the_network_stream_tells_where_a_response_comes_from(
    pair: Pair, protocol: str, certificates: Certificates
) -> None:
    async with asking(pair, protocol, certificates) as it, it.client.stream("GET", "/echo") as response:
        stream = response.extensions["network_stream"]
        port = int(it.site.url.rsplit(":", 1)[1])
        assert stream.get_extra_info("server_addr") == ("127.0.0.1", port)
        assert stream.get_extra_info("client_addr") in it.site.clients
        tls = stream.get_extra_info("ssl_object")
        assert (tls is not None) == ("TLS" in protocol)
        if tls is not None:
            assert tls.selected_alpn_protocol() == ("h2" if it.version == "HTTP/2" else "http/1.1")


async def test_many_tasks_get_their_own_answers(pair: Pair, protocol: str, certificates: Certificates) -> None:
    async with asking(pair, protocol, certificates) as it:

        async def ask(number: int) -> None:
            response = await it.client.post("/echo", content=b"%d" % number)
            assert response.json()["body"] == str(number)

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(ask, number)
        assert it.site.requests == 100


# The generators of httpx and of httpcore that were not read to their end.
@pytest.mark.filterwarnings("ignore:Async generator 'http")
async def test_server_sent_events_hold_their_lease_until_closed(
    pair: Pair, protocol: str, certificates: Certificates
) -> None:
    async with asking(pair, protocol, certificates) as it:
        async with it.client.stream("GET", "/events/") as response:
            events = response.aiter_lines()
            assert [await anext(events) for _ in range(3)] == ["data: 0", "", "data: 1"]
            assert leases(it.transport) == 1
            await events.aclose()
        assert leases(it.transport) == 0
        assert (await it.client.get("/echo")).status_code == 200


async def test_a_request_that_failed_leaves_the_transport_usable(
    pair: Pair, protocol: str, certificates: Certificates
) -> None:
    async def failing() -> AsyncIterator[bytes]:
        await trio.lowlevel.checkpoint()
        yield b"some"
        raise ValueError("the body failed")

    async with asking(pair, protocol, certificates) as it:
        with pytest.raises(ValueError, match="the body failed"):
            await it.client.post("/size", content=failing())
        assert leases(it.transport) == 0
        assert (await it.client.get("/echo")).status_code == 200
