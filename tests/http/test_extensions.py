"""Extensions of requests and responses: what httpx's own transport reports and obeys, this one does, too."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.http.figures import causes, leases
from tests.http.servers.hanging import nobody_listens
from tests.http.servers.http1 import Visitor, answering
from tests.http.servers.http2 import Stream, http2_serving
from tests.http.servers.proxies import http_proxy
from tests.http.servers.web import web_serving

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.http.pairs import Client, Option, Pair
    from tests.http.servers.http1 import Request
    from tests.http.servers.tls import Certificates

Event = tuple[str, tuple[str, ...]]


class Tracer:
    """Collects the events of requests: their names, and the names of what they carry."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    async def __call__(self, name: str, info: dict[str, Any]) -> None:
        self.events.append((name, tuple(sorted(info))))


async def traced(
    pair: Pair, scenario: Callable[[Any, dict[str, Any]], Awaitable[object]], **options: Option
) -> tuple[list[Event], list[Event]]:
    """Return the events of the scenario over httpx's transport and over ours."""
    seen = []
    for transport in (pair.httpx.AsyncHTTPTransport, pair.transport):
        tracer = Tracer()
        async with pair.over(transport(**options)) as client:
            await scenario(client, {"trace": tracer})
        seen.append(tracer.events)
    return seen[0], seen[1]


@pytest.mark.parametrize("over_tls", [False, True])
async def test_requests_on_a_new_and_a_used_connection_are_traced_alike(
    pair: Pair, certificates: Certificates, over_tls: bool
) -> None:
    async with web_serving(certificates.server() if over_tls else None) as site:

        async def scenario(client: Client, extensions: dict[str, Any]) -> None:
            await client.get(f"{site.url}/echo", extensions=extensions)
            await client.post(f"{site.url}/size", content=b"body", extensions=extensions)

        theirs, ours = await traced(pair, scenario, verify=certificates.client())
        assert ours == theirs
        assert ("connection.start_tls.complete" in {name for name, _ in ours}) == over_tls


async def test_requests_over_http2_are_traced_alike(pair: Pair, certificates: Certificates) -> None:
    async def answer(stream: Stream) -> None:
        await stream.ended.wait()
        await stream.answer()

    async with http2_serving(answer, tls=certificates.server("h2")) as origin:

        async def scenario(client: Client, extensions: dict[str, Any]) -> None:
            await client.get(origin.url, extensions=extensions)
            await client.post(origin.url, content=b"body", extensions=extensions)

        theirs, ours = await traced(pair, scenario, verify=certificates.client(), http2=True)
        # When the peer's SETTINGS are read depends on who reads first.
        theirs, ours = ([event for event in events if "settings" not in event[0]] for events in (theirs, ours))
        assert ours == theirs


async def test_a_failed_connect_is_traced_alike(pair: Pair) -> None:
    with nobody_listens() as url:

        async def scenario(client: Client, extensions: dict[str, Any]) -> None:
            with pytest.raises(pair.httpx.ConnectError):
                await client.get(url, extensions=extensions)

        theirs, ours = await traced(pair, scenario, verify=False, retries=1)
        assert ours == theirs


async def test_a_failed_handshake_is_traced_alike(pair: Pair, certificates: Certificates) -> None:
    async with answering(tls=certificates.server()) as origin:

        async def scenario(client: Client, extensions: dict[str, Any]) -> None:
            with pytest.raises(pair.httpx.ConnectError):
                await client.get(origin.url, extensions=extensions)

        theirs, ours = await traced(pair, scenario)
        assert ours == theirs


async def test_a_failed_answer_is_traced_alike(pair: Pair) -> None:
    async def break_off(visitor: Visitor, request: Request) -> bool:
        if request.target == "/body":
            await visitor.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        return False

    async with answering(break_off) as origin:

        async def scenario(client: Client, extensions: dict[str, Any]) -> None:
            for path in ("/head", "/body"):
                with suppress(pair.httpx.RemoteProtocolError):
                    await client.post(f"{origin.url}{path}", extensions=extensions)

        theirs, ours = await traced(pair, scenario, verify=False)
        assert ours == theirs


async def test_a_response_closed_early_is_traced_alike(pair: Pair) -> None:
    async with web_serving() as site:

        async def scenario(client: Client, extensions: dict[str, Any]) -> None:
            async with client.stream("GET", f"{site.url}/stream/100", extensions=extensions):
                pass

        theirs, ours = await traced(pair, scenario, verify=False)
        assert ours == theirs


async def test_a_tunnelled_request_is_traced_alike(pair: Pair, certificates: Certificates) -> None:
    async with answering(tls=certificates.server()) as origin, http_proxy() as proxy:

        async def scenario(client: Client, extensions: dict[str, Any]) -> None:
            await client.get(origin.url, extensions=extensions)

        theirs, ours = await traced(pair, scenario, verify=certificates.client(), proxy=proxy.url)
        assert ours == theirs


async def test_the_debug_log_says_the_same(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    async with answering() as origin:
        messages = []
        for transport in (pair.httpx.AsyncHTTPTransport, pair.transport):
            caplog.clear()
            with caplog.at_level("DEBUG"):
                async with pair.over(transport(verify=False)) as client:
                    await client.get(origin.url)
            core = [record for record in caplog.records if record.name.startswith("httpcore")]
            messages.append([(record.name, record.getMessage().split()[0]) for record in core])
        theirs, ours = messages
        assert len(ours) >= 10
        assert [entry for entry in ours if "close" not in entry[1]] == [
            entry for entry in theirs if "close" not in entry[1]
        ]


async def test_a_tracer_that_raises_fails_its_request_and_costs_no_slot(pair: Pair) -> None:
    async with answering() as origin:
        names: list[str] = []

        async def collect(name: str, info: dict[str, Any]) -> None:
            names.append(name)

        async with pair.client() as client:
            await client.get(origin.url, extensions={"trace": collect})
        for fatal in dict.fromkeys(names):

            async def trace(name: str, info: dict[str, Any], fatal: str = fatal) -> None:
                if name == fatal:
                    raise ValueError(fatal)

            transport = pair.make(limits=pair.limits(1))
            async with pair.over(transport) as client:
                with pytest.raises(ValueError, match=fatal):
                    await client.get(origin.url, extensions={"trace": trace})
                assert leases(transport) == 0, fatal
                assert (await client.get(origin.url)).text == "ok"


async def test_sni_hostname_is_the_name_that_is_asked_for_and_verified(pair: Pair, certificates: Certificates) -> None:
    asked: list[str | None] = []
    context = certificates.server()
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    async with answering(tls=context) as origin, pair.client(verify=certificates.client()) as client:
        url = f"https://127.0.0.1:{origin.server.port}"
        await client.get(url, extensions={"sni_hostname": "other.test"})
        assert asked == ["other.test"]
        assert origin.requests[0].headers["host"] == f"127.0.0.1:{origin.server.port}"
    async with answering(tls=context) as origin, pair.client(verify=certificates.client()) as client:
        with pytest.raises(pair.httpx.ConnectError) as raised:
            await client.get(origin.url, extensions={"sni_hostname": "wrong.test"})
        assert "Hostname mismatch" in causes(raised.value)


async def test_the_response_says_version_and_reason(pair: Pair) -> None:
    async def answer(visitor: Visitor, request: Request) -> None:
        await visitor.send(b"HTTP/1.1 299 Quite Fine\r\nContent-Length: 0\r\nX-CaSe: Kept\r\n\r\n")

    async with answering(answer) as origin, pair.client() as client:
        response = await client.get(origin.url)
        assert (response.status_code, response.reason_phrase) == (299, "Quite Fine")
        assert response.extensions["http_version"] == b"HTTP/1.1"
        assert (b"X-CaSe", b"Kept") in response.headers.raw


async def test_a_target_extension_is_sent_as_it_is(pair: Pair) -> None:
    async with answering() as origin, pair.client() as client:
        theirs = pair.over(pair.httpx.AsyncHTTPTransport())
        async with theirs:
            await theirs.get(f"{origin.url}/path", extensions={"target": b"/%7Eraw"})
        await client.get(f"{origin.url}/path", extensions={"target": b"/%7Eraw"})
        assert len(set(origin.targets)) == 1, origin.targets


class Stop(BaseException):
    """What a tracer may raise, as `pytest.fail` does, and only its own request may meet."""


@pytest.mark.parametrize("proxied", [False, True], ids=["direct", "tunnelled"])
async def test_whatever_a_tracer_raises_costs_its_own_request_alone(
    pair: Pair, certificates: Certificates, proxied: bool
) -> None:
    step = "http11.send_request_headers.started" if proxied else "connection.connect_tcp.started"

    async def stop(event: str, info: dict[str, Any]) -> None:
        if event == step:
            raise Stop

    async with answering(tls=certificates.server()) as origin, http_proxy() as proxy:
        transport = pair.make(verify=certificates.client(), proxy=proxy.url if proxied else None)
        async with pair.over(transport) as client, client.stream("GET", origin.url) as response:
            with pytest.raises(Stop):
                await client.get(origin.url, extensions={"trace": stop})
            assert await response.aread() == b"ok"
            assert (await client.get(origin.url)).text == "ok"
            assert leases(transport) == 0
