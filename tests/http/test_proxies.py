"""Requests through real proxies: forwarded, tunnelled, and over SOCKS5; one pool for each route."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from nimblepool.testing import sweep
from tests.http.figures import check_books, leases, total
from tests.http.servers.hanging import nobody_accepts, nobody_listens
from tests.http.servers.http1 import Visitor, answering, scripted
from tests.http.servers.http2 import http2_serving
from tests.http.servers.proxies import http_proxy, socks5_proxy
from tests.http.servers.web import web_serving

if TYPE_CHECKING:
    from tests.http.pairs import Pair
    from tests.http.servers.http1 import Origin, Request
    from tests.http.servers.tls import Certificates

SHORT = 0.05


async def test_http_is_forwarded_over_connections_that_are_reused(pair: Pair) -> None:
    transport_options: dict[str, Any] = {}
    async with answering() as origin, http_proxy() as proxy:
        transport = pair.make(proxy=proxy.url, **transport_options)
        async with pair.over(transport) as client:
            for number in range(3):
                response = await client.post(f"{origin.url}/{number}?q=1", content=b"body", headers={"X-Mine": "yes"})
                assert (response.text, response.headers["via"]) == ("ok", "1.1 test")
            assert [request.target for request in proxy.requests] == [f"{origin.url}/{n}?q=1" for n in range(3)]
            assert origin.targets == [f"/{n}?q=1" for n in range(3)]
            assert {request.headers["x-mine"] for request in origin.requests} == {"yes"}
            assert {request.body for request in origin.requests} == {b"body"}
            assert proxy.server.accepted == 1
            check_books(transport)
        await proxy.server.until_empty()


async def test_https_is_tunnelled_over_connections_that_are_reused(pair: Pair, certificates: Certificates) -> None:
    async with answering(tls=certificates.server()) as origin, http_proxy() as proxy:
        transport = pair.make(proxy=proxy.url, verify=certificates.client())
        async with pair.over(transport) as client:
            for number in range(3):
                assert (await client.get(f"{origin.url}/{number}")).text == "ok"
            assert [(request.method, request.target) for request in proxy.requests] == [
                ("CONNECT", f"localhost:{origin.server.port}")
            ]
            assert origin.targets == ["/0", "/1", "/2"]
            assert leases(transport) == 0
            check_books(transport)
        await proxy.server.until_empty()


async def test_http2_is_spoken_through_a_tunnel_and_a_burst_opens_one(pair: Pair, certificates: Certificates) -> None:
    async with (
        http2_serving(tls=certificates.server("h2")) as origin,
        http_proxy() as proxy,
        pair.client(proxy=proxy.url, verify=certificates.client(), http2=True) as client,
    ):
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(client.get, origin.url)
        assert len(origin.streams) == 20
        assert proxy.server.accepted == 1


async def test_a_proxy_may_speak_tls_itself(pair: Pair, certificates: Certificates) -> None:
    async with (
        http_proxy(tls=certificates.server()) as proxy,
        answering() as plain,
        answering(tls=certificates.server()) as secure,
    ):
        route = pair.httpx.Proxy(proxy.url, ssl_context=certificates.client())
        async with pair.client(proxy=route, verify=certificates.client()) as client:
            assert (await client.get(plain.url)).text == "ok"
            assert (await client.get(secure.url)).text == "ok"
        assert [request.method for request in proxy.requests] == ["GET", "CONNECT"]


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_the_proxy_s_password_is_sent_and_checked(pair: Pair, certificates: Certificates, scheme: str) -> None:
    tls = certificates.server() if scheme == "https" else None
    async with answering(tls=tls) as origin, http_proxy("user:secret") as proxy:
        good = f"http://user:secret@{proxy.address}"
        async with pair.client(proxy=good, verify=certificates.client()) as client:
            assert (await client.get(origin.url)).text == "ok"
        assert "proxy-authorization" not in origin.requests[0].headers
        for bad in (f"http://user:wrong@{proxy.address}", proxy.url):
            async with pair.client(proxy=bad, verify=certificates.client()) as client:
                if scheme == "http":
                    assert (await client.get(origin.url)).status_code == 407
                else:
                    with pytest.raises(pair.httpx.ProxyError, match="407"):
                        await client.get(origin.url)
        assert len(origin.requests) == 1


async def test_the_password_is_in_no_repr_and_no_error(pair: Pair, certificates: Certificates) -> None:
    async with http_proxy("user:other") as proxy, answering(tls=certificates.server()) as origin:
        transport = pair.make(proxy=f"http://user:hunter2@{proxy.address}", verify=certificates.client())
        async with pair.over(transport) as client:
            with pytest.raises(pair.httpx.ProxyError) as raised:
                await client.get(origin.url)
            assert "hunter2" not in f"{raised.value!r} {raised.value} {transport!r} {transport.stats!r}"
            assert "hunter2" not in " ".join(map(repr, transport.stats.values()))


async def test_headers_for_the_proxy_go_to_the_proxy_alone(pair: Pair, certificates: Certificates) -> None:
    async with answering(tls=certificates.server()) as origin, http_proxy() as proxy:
        route = pair.httpx.Proxy(proxy.url, headers={"X-Route": "here"})
        async with pair.client(proxy=route, verify=certificates.client()) as client:
            await client.get(origin.url)
        assert proxy.requests[0].headers["x-route"] == "here"
        assert "x-route" not in origin.requests[0].headers


async def test_socks5_carries_http_and_https(pair: Pair, certificates: Certificates) -> None:
    async with answering() as plain, answering(tls=certificates.server()) as secure, socks5_proxy() as proxy:
        transport = pair.make(proxy=f"socks5://{proxy.address}", verify=certificates.client())
        async with pair.over(transport) as client:
            for _ in range(3):
                assert (await client.get(plain.url)).text == "ok"
                assert (await client.get(secure.url)).text == "ok"
            assert proxy.asked == [("127.0.0.1", plain.server.port), ("localhost", secure.server.port)]
            assert leases(transport) == 0
            check_books(transport)
        await proxy.server.until_empty()


async def test_socks5_carries_http2(pair: Pair, certificates: Certificates) -> None:
    async with http2_serving(tls=certificates.server("h2")) as origin, socks5_proxy() as proxy:
        url = f"socks5h://{proxy.address}"
        async with pair.client(proxy=url, verify=certificates.client(), http2=True) as client:
            assert (await client.get(origin.url)).http_version == "HTTP/2"


async def test_socks5_knows_passwords(pair: Pair) -> None:
    async with answering() as origin, socks5_proxy("user:secret") as proxy:
        async with pair.client(proxy=f"socks5://user:secret@{proxy.address}") as client:
            assert (await client.get(origin.url)).text == "ok"
        for address in (f"user:wrong@{proxy.address}", proxy.address):
            transport = pair.make(proxy=f"socks5://{address}")
            async with pair.over(transport) as client:
                with pytest.raises(pair.httpx.ProxyError):
                    await client.get(origin.url)
                assert total(transport, "size") == 0


@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_an_origin_that_the_proxy_cannot_reach_is_a_proxy_error(
    pair: Pair, certificates: Certificates, kind: str
) -> None:
    serve = http_proxy if kind == "http" else socks5_proxy
    with nobody_listens() as url:
        async with serve() as proxy:
            transport = pair.make(proxy=f"{kind}://{proxy.address}", verify=certificates.client())
            async with pair.over(transport) as client:
                for _ in range(3):
                    with trio.fail_after(5), pytest.raises(pair.httpx.ProxyError):
                        await client.get(url.replace("http", "https"))
                assert (leases(transport), total(transport, "size")) == (0, 0)
            await proxy.server.until_empty()


@pytest.mark.parametrize("scheme", ["http", "https", "socks5"])
async def test_a_proxy_that_refuses_is_a_connect_error(pair: Pair, scheme: str) -> None:
    with nobody_listens() as url:
        address = url.removeprefix("http")
        proxy, target = ("socks5", "http") if scheme == "socks5" else ("http", scheme)
        async with pair.client(proxy=f"{proxy}{address}", verify=False) as client:
            with trio.fail_after(5), pytest.raises(pair.httpx.ConnectError):
                await client.get(f"{target}://localhost:1/")


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_hangs_is_a_connect_timeout(pair: Pair, scheme: str) -> None:
    with nobody_accepts() as url:
        timeout = pair.timeout(connect=SHORT)
        async with pair.client(proxy=url, verify=False, timeout=timeout) as client:
            with pytest.raises(pair.httpx.ConnectTimeout):
                await client.get(f"{scheme}://localhost:1/")


async def test_a_proxy_that_never_answers_connect_is_a_time_out(pair: Pair) -> None:
    async with scripted(lambda visitor: visitor.until_gone()) as server:
        transport = pair.make(proxy=server.url, verify=False)
        timeout = pair.timeout(connect=SHORT, read=SHORT)
        async with pair.over(transport, timeout=timeout) as client:
            with pytest.raises((pair.httpx.ConnectTimeout, pair.httpx.ReadTimeout)):
                await client.get("https://localhost:1/")
            assert (leases(transport), total(transport, "size")) == (0, 0)
        await server.until_empty()


async def test_a_forwarding_proxy_that_breaks_off_fails_one_request(pair: Pair) -> None:
    async def break_off(visitor: Visitor, request: Request) -> bool:
        if request.target.endswith("/bad"):
            await visitor.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
            return False
        await visitor.answer()
        return True

    async with answering(break_off) as proxy, pair.client(proxy=proxy.url) as client:
        with pytest.raises(pair.httpx.RemoteProtocolError):
            await client.get("http://origin.test/bad")
        assert (await client.get("http://origin.test/good")).text == "ok"


async def test_origins_behind_one_proxy_are_not_mixed_up(pair: Pair, certificates: Certificates) -> None:
    async def answer(visitor: Visitor, request: Request) -> None:
        await visitor.answer(request.headers["host"].encode())

    tls = certificates.server()
    async with (
        answering(answer, tls=tls) as one,
        answering(answer, tls=tls) as two,
        http_proxy() as proxy,
        pair.client(proxy=proxy.url, verify=certificates.client()) as client,
    ):

        async def ask(origin: Origin) -> None:
            assert (await client.get(origin.url)).text == f"localhost:{origin.server.port}"

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask, one)
                nursery.start_soon(ask, two)


async def test_max_connections_holds_through_a_proxy(pair: Pair) -> None:
    async with web_serving() as site, http_proxy() as proxy:
        async with pair.client(proxy=proxy.url, limits=pair.limits(3)) as client, trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(client.get, f"{site.url}/echo")
        assert site.requests == 20
        assert proxy.server.most_at_once == 3


async def test_a_proxied_connection_closed_while_idle_is_not_used(pair: Pair, certificates: Certificates) -> None:
    async def once(visitor: Visitor, request: Request) -> bool:
        await visitor.answer()
        return False

    async with (
        answering(once, tls=certificates.server()) as origin,
        http_proxy() as proxy,
        pair.client(proxy=proxy.url, verify=certificates.client()) as client,
    ):
        for number in range(4):
            assert (await client.post(origin.url, content=b"%d" % number)).text == "ok"
            await proxy.server.until_empty()
        assert [request.body for request in origin.requests] == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_a_tunnel_that_is_cancelled_anywhere_costs_no_slot(
    pair: Pair, certificates: Certificates, kind: str
) -> None:
    serve = http_proxy if kind == "http" else socks5_proxy
    async with answering(tls=certificates.server()) as origin, serve() as proxy:
        transport = pair.make(proxy=f"{kind}://{proxy.address}", verify=certificates.client(), limits=pair.limits(1, 0))
        async with pair.over(transport) as client:

            async def scenario() -> None:
                assert (await client.get(origin.url)).text == "ok"

            async def after() -> None:
                assert leases(transport) == 0
                check_books(transport)

            assert await sweep(scenario, after) > 5
            with trio.fail_after(5):
                assert (await client.get(origin.url)).text == "ok"
