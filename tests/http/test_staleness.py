"""A connection that the server closed while it was idle is found before use; nothing that was sent is sent twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from tests.http.figures import check_books, leases, total
from tests.http.servers.http1 import OK, Visitor, answering, scripted
from tests.http.servers.http2 import Stream, http2_serving
from tests.http.servers.listening import pause, reset

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.http.pairs import Pair
    from tests.http.servers.http1 import Request
    from tests.http.servers.tls import Certificates

PRIOR = {"http1": False, "http2": True}


class Fickle:
    """Answers one request on each connection, and then does with it what ``then`` says."""

    def __init__(self, then: Callable[[Visitor], Awaitable[None]]) -> None:
        self.bodies: list[bytes] = []
        self.methods: list[str] = []
        self._then = then

    async def __call__(self, visitor: Visitor) -> None:
        request = await visitor.request()
        assert request is not None
        self.methods.append(request.method)
        self.bodies.append(request.body)
        await visitor.send(OK)
        await self._then(visitor)


async def close(visitor: Visitor) -> None:
    """Close the connection while it is idle."""


async def reset_it(visitor: Visitor) -> None:
    assert isinstance(visitor.stream, trio.SocketStream)
    reset(visitor.stream)


async def send_408(visitor: Visitor) -> None:
    """Do what some servers do to an idle connection: answer a request that nobody made, and close."""
    await visitor.send(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


async def take_the_next_and_close(visitor: Visitor) -> None:
    """Read the next request, and close without an answer: the race that no look at the socket can win."""
    request = await visitor.request()
    seen.append(None if request is None else request.method)


seen: list[str | None] = []


@pytest.fixture(autouse=True)
def nothing_was_seen() -> None:
    seen.clear()


@pytest.mark.parametrize("how", [close, reset_it, send_408])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_connection_closed_while_idle_is_not_used(
    pair: Pair, how: Callable[[Visitor], Awaitable[None]], method: str
) -> None:
    fickle = Fickle(how)
    async with scripted(fickle) as server, pair.client() as client:
        for number in range(5):
            response = await client.request(method, server.url, content=b"%d" % number)
            assert response.text == "ok"
            await server.until_empty()
            await pause()
        assert fickle.bodies == [b"%d" % number for number in range(5)]
        assert server.accepted == 5


async def test_a_connection_closed_while_idle_is_not_used_over_tls(pair: Pair, certificates: Certificates) -> None:
    fickle = Fickle(close)
    async with (
        scripted(fickle, tls=certificates.server()) as server,
        pair.client(verify=certificates.client()) as client,
    ):
        for number in range(5):
            assert (await client.post(server.url, content=b"%d" % number)).text == "ok"
            await server.until_empty()
            await pause()
        assert fickle.bodies == [b"%d" % number for number in range(5)]


async def test_many_connections_closed_while_idle_cost_no_request(pair: Pair) -> None:
    generation = trio.Event()
    bodies: list[bytes] = []

    async def script(visitor: Visitor) -> None:
        async with trio.open_nursery() as nursery:

            async def hang_up() -> None:
                await generation.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(hang_up)
            while (request := await visitor.request()) is not None:
                bodies.append(request.body)
                await visitor.send(OK)
            nursery.cancel_scope.cancel()

    transport = pair.make()
    async with scripted(script) as server, pair.over(transport) as client:
        for round_number in range(3):

            async def post(number: int, round_number: int = round_number) -> None:
                assert (await client.post(server.url, content=b"%d.%d" % (round_number, number))).text == "ok"

            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(post, number)
            generation.set()
            await server.until_empty()
            generation = trio.Event()
        assert sorted(bodies) == sorted(b"%d.%d" % (r, n) for r in range(3) for n in range(20))
        check_books(transport)


async def test_the_close_of_an_idle_http2_connection_is_found_before_use(pair: Pair) -> None:
    bodies: list[bytes] = []

    async def answer_and_close(stream: Stream) -> None:
        await stream.ended.wait()
        bodies.append(stream.body)
        await stream.answer()
        await trio.sleep(0.005)
        await stream.visitor.stream.aclose()

    async with http2_serving(answer_and_close) as origin, pair.client(**PRIOR) as client:
        for number in range(3):
            assert (await client.post(origin.url, content=b"%d" % number)).text == "ok"
            await origin.server.until_empty()
            await pause()
        assert bodies == [b"0", b"1", b"2"]


async def test_goaway_on_an_idle_http2_connection_is_found_before_use(pair: Pair) -> None:
    async with http2_serving() as origin, pair.client(**PRIOR) as client:
        for number in range(3):
            assert (await client.post(origin.url, content=b"%d" % number)).text == "ok"
            await origin.visitors[-1].goaway(origin.streams[-1].number)
            await pause()
        assert [stream.body for stream in origin.streams] == [b"0", b"1", b"2"]
        assert origin.server.accepted == 3


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_an_idempotent_request_that_meets_a_closing_connection_is_sent_once_more(pair: Pair, method: str) -> None:
    fickle = Fickle(take_the_next_and_close)
    transport = pair.make()
    async with scripted(fickle) as server, pair.over(transport) as client:
        assert (await client.get(server.url)).text == "ok"
        response = await client.request(method, server.url, content=b"" if method in {"GET", "HEAD"} else b"body")
        assert response.status_code == 200
        assert seen == [method]
        assert fickle.methods == ["GET", method]
        assert leases(transport) == 0
        check_books(transport)


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_request_that_changes_something_is_never_sent_twice(pair: Pair, method: str) -> None:
    fickle = Fickle(take_the_next_and_close)
    transport = pair.make()
    async with scripted(fickle) as server, pair.over(transport) as client:
        assert (await client.get(server.url)).text == "ok"
        with pytest.raises((pair.httpx.RemoteProtocolError, pair.httpx.ReadError)):
            await client.request(method, server.url, content=b"body")
        assert seen == [method]
        assert fickle.methods == ["GET"]
        assert leases(transport) == 0


async def test_a_body_that_cannot_be_produced_again_is_not_sent_again(pair: Pair) -> None:
    produced = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal produced
        produced += 1
        await trio.lowlevel.checkpoint()
        yield b"once"

    fickle = Fickle(take_the_next_and_close)
    async with scripted(fickle) as server, pair.client() as client:
        assert (await client.get(server.url)).text == "ok"
        with pytest.raises((pair.httpx.RemoteProtocolError, pair.httpx.ReadError)):
            await client.put(server.url, content=body())
        assert (produced, fickle.methods) == (1, ["GET"])


async def test_a_request_is_sent_once_more_and_no_oftener(pair: Pair) -> None:
    together = trio.Event()
    visitors = 0
    closed = 0

    async def script(visitor: Visitor) -> None:
        nonlocal visitors, closed
        await visitor.request()
        visitors += 1
        if visitors == 5:
            together.set()
        await together.wait()
        await visitor.send(OK)
        if await visitor.request() is not None:
            closed += 1

    transport = pair.make()
    async with scripted(script) as server, pair.over(transport) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(client.get, server.url)
        assert total(transport, "idle") == 5
        with pytest.raises((pair.httpx.RemoteProtocolError, pair.httpx.ReadError)):
            await client.get(server.url)
        assert closed == 2


async def test_a_new_connection_that_is_closed_without_an_answer_is_no_stale_one(pair: Pair) -> None:
    async def hang_up(visitor: Visitor, request: Request) -> bool:
        return False

    async with answering(hang_up) as origin, pair.client() as client:
        with pytest.raises((pair.httpx.RemoteProtocolError, pair.httpx.ReadError)):
            await client.get(origin.url)
        assert len(origin.requests) == 1


async def test_an_answer_that_began_is_never_asked_for_again(pair: Pair) -> None:
    async def script(visitor: Visitor) -> None:
        await visitor.request()
        await visitor.send(OK)
        if await visitor.request() is not None:
            await visitor.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")

    async with scripted(script) as server, pair.client() as client:
        await client.get(server.url)
        with pytest.raises((pair.httpx.RemoteProtocolError, pair.httpx.ReadError)):
            await client.get(server.url)
        assert server.accepted == 1


async def test_a_connection_that_fails_its_retry_too_leaves_no_lease(pair: Pair) -> None:
    transport = pair.make(limits=pair.limits(1))

    async def script(visitor: Visitor) -> None:
        if visitor.number == 1:
            await visitor.request()
            await visitor.send(OK)
            await visitor.request()
            return
        if visitor.number == 2:
            await visitor.request()
            await visitor.send(b"garbage\r\n\r\n")
            return
        await visitor.request()
        await visitor.send(OK)

    async with scripted(script) as server, pair.over(transport) as client:
        await client.get(server.url)
        with pytest.raises(pair.httpx.TransportError):
            await client.get(server.url)
        assert leases(transport) == 0
        assert (await client.get(server.url)).text == "ok"
        assert total(transport, "size") <= 1
