"""Every option of httpx's own transport means here what it means there."""

from __future__ import annotations

import inspect
import socket
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.http.figures import causes
from tests.http.servers.hanging import nobody_listens
from tests.http.servers.http1 import answering
from tests.http.servers.http2 import http2_serving
from tests.http.servers.listening import until
from tests.http.servers.web import web_serving

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from tests.http.pairs import Pair
    from tests.http.servers.http1 import Request, Visitor
    from tests.http.servers.tls import Certificates


def test_httpx_s_options_stand_here_with_the_same_defaults(pair: Pair) -> None:
    theirs = inspect.signature(pair.httpx.AsyncHTTPTransport).parameters
    ours = inspect.signature(pair.transport).parameters
    assert {name for name in theirs if name not in ours} == set()
    differing = [name for name, parameter in theirs.items() if ours[name].default != parameter.default]
    assert differing == []


async def test_verify_true_knows_the_public_authorities_alone(pair: Pair, certificates: Certificates) -> None:
    async with answering(tls=certificates.server()) as origin, pair.client(verify=True) as client:
        with pytest.raises(pair.httpx.ConnectError) as raised:
            await client.get(origin.url)
        assert "CERTIFICATE_VERIFY_FAILED" in causes(raised.value)
        assert origin.requests == []


async def test_verify_takes_a_context(pair: Pair, certificates: Certificates) -> None:
    async with answering(tls=certificates.server()) as origin, pair.client(verify=certificates.client()) as client:
        assert (await client.get(origin.url)).text == "ok"
        assert (await client.get(f"https://127.0.0.1:{origin.server.port}")).text == "ok"


async def test_verify_false_trusts_everybody(pair: Pair, certificates: Certificates) -> None:
    async with answering(tls=certificates.server()) as origin, pair.client(verify=False) as client:
        assert (await client.get(origin.url)).text == "ok"


@pytest.mark.filterwarnings("ignore:`verify=<str>` is deprecated")
async def test_verify_takes_a_file_of_authorities(pair: Pair, certificates: Certificates, tmp_path: Path) -> None:
    path = str(certificates.write_authority(tmp_path))
    async with answering(tls=certificates.server()) as origin, pair.client(verify=path) as client:
        assert (await client.get(origin.url)).text == "ok"


@pytest.mark.filterwarnings("ignore:`cert=...` is deprecated")
async def test_cert_is_shown_to_a_server_that_demands_it(
    pair: Pair, certificates: Certificates, tmp_path: Path
) -> None:
    path = str(certificates.write_client(tmp_path))
    async with answering(tls=certificates.demanding_server()) as origin:
        async with pair.client(verify=certificates.client(), cert=path) as client:
            assert (await client.get(origin.url)).text == "ok"
        async with pair.client(verify=certificates.client()) as client:
            with pytest.raises(pair.httpx.TransportError):
                await client.get(origin.url)


@pytest.mark.parametrize("trust_env", [True, False])
async def test_trust_env_reads_ssl_cert_file(
    pair: Pair, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trust_env: bool
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.write_authority(tmp_path)))
    async with (
        answering(tls=certificates.server()) as origin,
        pair.client(verify=True, trust_env=trust_env) as client,
    ):
        if trust_env:
            assert (await client.get(origin.url)).text == "ok"
        else:
            with pytest.raises(pair.httpx.ConnectError):
                await client.get(origin.url)


@pytest.mark.parametrize(
    ("http1", "http2", "version"), [(True, False, "HTTP/1.1"), (True, True, "HTTP/2"), (False, True, "HTTP/2")]
)
async def test_http1_and_http2_say_what_may_be_spoken_over_tls(
    pair: Pair, certificates: Certificates, http1: bool, http2: bool, version: str
) -> None:
    async with (
        web_serving(certificates.server("h2", "http/1.1")) as site,
        pair.client(verify=certificates.client(), http1=http1, http2=http2) as client,
    ):
        assert (await client.get(f"{site.url}/echo")).http_version == version


async def test_http2_falls_back_where_the_server_has_none(pair: Pair, certificates: Certificates) -> None:
    async with answering(tls=certificates.server()) as origin:
        async with pair.client(verify=certificates.client(), http2=True) as client:
            assert (await client.get(origin.url)).http_version == "HTTP/1.1"
            assert (await client.get(origin.url)).http_version == "HTTP/1.1"
        assert origin.server.accepted == 1


async def test_http2_without_tls_is_not_spoken_while_http1_is_allowed(pair: Pair) -> None:
    async with answering() as origin, pair.client(http2=True) as client:
        assert (await client.get(origin.url)).http_version == "HTTP/1.1"


async def test_http2_alone_is_spoken_without_tls(pair: Pair) -> None:
    async with http2_serving() as origin, pair.client(http1=False, http2=True) as client:
        assert (await client.get(origin.url)).http_version == "HTTP/2"


async def test_uds_is_where_every_request_goes(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with answering(path=path) as origin, pair.client(uds=str(path)) as client:
        assert (await client.get("http://anywhere/one")).text == "ok"
        assert (await client.get("http://anywhere/two")).text == "ok"
        assert [request.headers["host"] for request in origin.requests] == ["anywhere", "anywhere"]
        assert origin.server.accepted == 1


async def test_uds_speaks_tls_to_an_https_origin(pair: Pair, tmp_path: Path, certificates: Certificates) -> None:
    path = tmp_path / "socket"
    async with answering(path=path, tls=certificates.server()) as origin:
        async with pair.client(uds=str(path), verify=certificates.client()) as client:
            assert (await client.get("https://other.test/")).text == "ok"
        assert len(origin.requests) == 1


async def test_a_missing_uds_is_a_connect_error(pair: Pair, tmp_path: Path) -> None:
    async with pair.client(uds=str(tmp_path / "nobody")) as client:
        with pytest.raises(pair.httpx.ConnectError):
            await client.get("http://anywhere/")


async def test_local_address_is_where_connections_come_from(pair: Pair) -> None:
    async with web_serving() as site, pair.client(local_address="127.0.0.7") as client:
        await client.get(f"{site.url}/echo")
        assert {host for host, _ in site.clients} == {"127.0.0.7"}


async def test_socket_options_are_set(pair: Pair) -> None:
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77)]
    async with (
        answering() as origin,
        pair.client(socket_options=options) as client,
        client.stream("GET", origin.url) as response,
    ):
        sock = response.extensions["network_stream"].get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77


async def test_retries_are_made_for_a_failed_connect_alone(pair: Pair) -> None:
    events: list[str] = []

    async def trace(event: str, info: dict[str, Any]) -> None:
        events.append(event)

    with nobody_listens() as url:
        async with pair.client(retries=2) as client:
            with pytest.raises(pair.httpx.ConnectError):
                await client.get(url, extensions={"trace": trace})
        assert events.count("connection.connect_tcp.started") == 3
        assert events.count("connection.retry.started") == 2
        events.clear()
        async with pair.client() as client:
            with pytest.raises(pair.httpx.ConnectError):
                await client.get(url, extensions={"trace": trace})
        assert events.count("connection.connect_tcp.started") == 1


async def test_retries_find_a_server_that_comes_up_meanwhile(pair: Pair) -> None:
    with nobody_listens() as url:
        port = int(url.rsplit(":", 1)[1])
    failed, up, done = trio.Event(), trio.Event(), trio.Event()

    async def trace(event: str, info: dict[str, Any]) -> None:
        if event == "connection.retry.started":
            failed.set()
            await up.wait()

    async def come_up() -> None:
        await failed.wait()
        async with answering(port=port):
            up.set()
            await done.wait()

    async with trio.open_nursery() as nursery, pair.client(retries=1) as client:
        nursery.start_soon(come_up)
        assert (await client.get(url, extensions={"trace": trace})).text == "ok"
        done.set()


async def test_a_failed_answer_is_not_a_reason_to_retry_a_post(pair: Pair) -> None:
    async def hang_up(visitor: Visitor, request: Request) -> bool:
        return False

    async with answering(hang_up) as origin, pair.client(retries=3) as client:
        with pytest.raises(pair.httpx.RemoteProtocolError):
            await client.post(origin.url, content=b"once")
        assert len(origin.requests) == 1


async def test_one_context_serves_transports_of_both_versions(pair: Pair, certificates: Certificates) -> None:
    shared: ssl.SSLContext = certificates.client()
    async with (
        web_serving(certificates.server("h2", "http/1.1")) as site,
        pair.client(verify=shared, http2=True) as new,
        pair.client(verify=shared) as old,
    ):
        for _ in range(2):
            assert (await new.get(f"{site.url}/echo")).http_version == "HTTP/2"
            assert (await old.get(f"{site.url}/echo")).http_version == "HTTP/1.1"


@pytest.mark.parametrize("scheme", ["ftp", "gopher", "mailto"])
async def test_an_unsupported_scheme_is_refused(pair: Pair, scheme: str) -> None:
    async with pair.client() as client:
        with pytest.raises(pair.httpx.UnsupportedProtocol):
            await client.get(f"{scheme}://127.0.0.1/")


async def test_an_unknown_proxy_scheme_is_refused(pair: Pair) -> None:
    with pytest.raises(ValueError, match=r"(?i)proxy"):
        pair.make(proxy="gopher://127.0.0.1:70")


@pytest.mark.parametrize(("connections", "keepalive"), [(None, None), (1, 0), (1000, 100)])
async def test_limits_may_be_anything_that_httpx_takes(
    pair: Pair, connections: int | None, keepalive: int | None
) -> None:
    limits = pair.limits(connections, keepalive, None)
    async with answering() as origin, pair.client(limits=limits) as client:
        for _ in range(2):
            assert (await client.get(origin.url)).text == "ok"
        if keepalive == 0:
            await origin.server.until_empty()
            assert origin.server.accepted == 2
        else:
            assert origin.server.accepted == 1


async def test_neither_version_is_refused_or_means_http1(pair: Pair) -> None:
    try:
        client = pair.client(http1=False, http2=False)
    except ValueError as error:
        assert "http1" in str(error)  # noqa: PT017 # either is right
        return
    async with answering() as origin, client:
        assert (await client.get(origin.url)).http_version == "HTTP/1.1"
        await until(lambda: origin.server.living)
