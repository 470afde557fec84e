"""The lease of a connection ends exactly when the response's body has been read, closed, abandoned or failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from nimblepool.testing import sweep
from tests.http.figures import check_books, collect, leases, total, until_unleased
from tests.http.servers.http1 import Visitor, answering
from tests.http.servers.http2 import Stream, http2_serving
from tests.http.servers.listening import until
from tests.http.servers.web import CHUNK, web_serving

if TYPE_CHECKING:
    from tests.http.pairs import Pair
    from tests.http.servers.http1 import Request

PRIOR = {"http1": False, "http2": True}
VERSIONS = pytest.mark.parametrize("options", [{}, PRIOR], ids=["http/1.1", "http/2"])


@VERSIONS
async def test_the_lease_ends_with_the_last_chunk(pair: Pair, options: dict[str, Any]) -> None:
    transport = pair.make(**options)
    async with web_serving() as site, pair.over(transport) as client:
        request = client.build_request("GET", f"{site.url}/stream/64")
        response = await client.send(request, stream=True)
        assert leases(transport) == 1
        length = 0
        async for chunk in response.aiter_raw():
            assert leases(transport) == 1
            length += len(chunk)
        assert length == 64 * len(CHUNK)
        assert leases(transport) == 0
        await response.aclose()
        assert leases(transport) == 0
        assert total(transport, "idle") == 1


@VERSIONS
async def test_the_lease_ends_when_the_response_is_closed(pair: Pair, options: dict[str, Any]) -> None:
    transport = pair.make(**options)
    async with web_serving() as site, pair.over(transport) as client:
        for path in ("/stream/1000", "/echo"):
            response = await client.send(client.build_request("GET", f"{site.url}{path}"), stream=True)
            assert leases(transport) == 1
            await response.aclose()
            assert leases(transport) == 0
            for _ in range(3):
                await response.aclose()
        assert leases(transport) == 0
        check_books(transport)


# The generators of httpx and of httpcore that were not read to their end.
@pytest.mark.filterwarnings("ignore:Async generator 'http")
@VERSIONS
async def test_reading_some_and_closing_ends_the_lease(pair: Pair, options: dict[str, Any]) -> None:
    transport = pair.make(**options)
    async with web_serving() as site, pair.over(transport) as client:
        async with client.stream("GET", f"{site.url}/stream/1000") as response:
            parts = response.aiter_raw()
            assert await anext(parts)
            assert leases(transport) == 1
            await parts.aclose()
        assert leases(transport) == 0
        assert (await client.get(f"{site.url}/echo")).status_code == 200


@VERSIONS
async def test_the_lease_ends_when_the_collector_takes_the_response(pair: Pair, options: dict[str, Any]) -> None:
    # httpcore #1108, redis-py #3289: the collector ran clean-up inside the pool.
    transport = pair.make(limits=pair.limits(1), **options)
    async with web_serving() as site, pair.over(transport) as client:
        response: Any = None
        for _ in range(2):
            response = await client.send(client.build_request("GET", f"{site.url}/stream/1000"), stream=True)
            with pytest.warns(ResourceWarning):  # noqa: PT031 # the pool learns of it a moment later
                response = None
                collect()
                await until_unleased(transport)
        assert response is None
        assert (await client.get(f"{site.url}/echo")).status_code == 200
        check_books(transport)


async def test_the_lease_ends_when_the_body_fails(pair: Pair) -> None:
    async def half(visitor: Visitor, request: Request) -> bool:
        await visitor.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        return False

    transport = pair.make()
    async with answering(half) as origin, pair.over(transport) as client:
        async with client.stream("GET", origin.url) as response:
            assert leases(transport) == 1
            with pytest.raises(pair.httpx.RemoteProtocolError):
                await response.aread()
            assert leases(transport) == 0
        assert total(transport, "idle") == 0


async def test_the_lease_ends_when_an_http2_stream_is_reset(pair: Pair) -> None:
    async def half(stream: Stream) -> None:
        await stream.begin()
        await stream.send(b"half")
        await stream.reset(2)

    transport = pair.make(**PRIOR)
    async with (
        http2_serving(half) as origin,
        pair.over(transport) as client,
        client.stream("GET", origin.url) as response,
    ):
        with pytest.raises(pair.httpx.RemoteProtocolError):
            await response.aread()
        assert leases(transport) == 0


@VERSIONS
async def test_the_lease_ends_when_the_reader_is_cancelled(pair: Pair, options: dict[str, Any]) -> None:
    transport = pair.make(**options)
    async with web_serving() as site, pair.over(transport) as client:
        with trio.CancelScope() as scope:
            async with client.stream("GET", f"{site.url}/events/") as response:
                async for _ in response.aiter_raw():
                    assert leases(transport) == 1
                    scope.cancel()
        assert scope.cancelled_caught
        assert leases(transport) == 0


@VERSIONS
async def test_a_response_may_be_read_and_closed_by_another_task(pair: Pair, options: dict[str, Any]) -> None:
    transport = pair.make(**options)
    async with web_serving() as site, pair.over(transport) as client:
        send, receive = trio.open_memory_channel[Any](0)

        async def fetch() -> None:
            request = client.build_request("GET", f"{site.url}/stream/16")
            await send.send(await client.send(request, stream=True))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch)
            response = await receive.receive()
        assert leases(transport) == 1
        assert await response.aread() == 16 * CHUNK
        assert leases(transport) == 0


@VERSIONS
async def test_an_open_response_does_not_hinder_the_transport_from_closing(pair: Pair, options: dict[str, Any]) -> None:
    transport = pair.make(**options)
    async with web_serving() as site:
        async with pair.over(transport) as client:
            response = await client.send(client.build_request("GET", f"{site.url}/events/"), stream=True)
            with trio.fail_after(5):
                await client.aclose()
        assert response.status_code == 200
        with trio.fail_after(5):
            await response.aclose()
        await response.aclose()
        check_books(transport)


@VERSIONS
async def test_reading_on_after_the_transport_was_closed_is_one_of_httpx_s_errors(
    pair: Pair, options: dict[str, Any]
) -> None:
    async with web_serving() as site:
        async with pair.client(**options) as client:
            response = await client.send(client.build_request("GET", f"{site.url}/events/"), stream=True)
        with trio.fail_after(5), pytest.raises((pair.httpx.TransportError, pair.httpx.StreamError)):
            await response.aread()


@pytest.mark.filterwarnings("ignore:Async generator 'httpx")
async def test_a_response_collected_after_the_transport_was_closed_harms_nobody(pair: Pair) -> None:
    async with web_serving() as site:
        async with pair.client() as client:
            response: Any = await client.send(client.build_request("GET", f"{site.url}/events/"), stream=True)
        response = None
        collect()
        await trio.lowlevel.checkpoint()
    assert response is None


@VERSIONS
async def test_the_close_of_a_response_cannot_be_cancelled_half_way(pair: Pair, options: dict[str, Any]) -> None:
    transport = pair.make(limits=pair.limits(1), **options)
    async with web_serving() as site, pair.over(transport) as client:

        async def scenario() -> None:
            response: Any = None
            with trio.CancelScope(shield=True):
                response = await client.send(client.build_request("GET", f"{site.url}/stream/10"), stream=True)
            await response.aclose()

        async def after() -> None:
            assert leases(transport) == 0
            check_books(transport)

        assert await sweep(scenario, after) >= 0
        with trio.fail_after(5):
            assert (await client.get(f"{site.url}/echo")).status_code == 200


@VERSIONS
async def test_a_response_closed_under_a_cancelled_scope_gives_its_connection_back(
    pair: Pair, options: dict[str, Any]
) -> None:
    # SQLAlchemy #8145: clean-up under a cancelled scope stopped at its first await, and the socket lived on.
    transport = pair.make(limits=pair.limits(1), **options)
    async with web_serving() as site, pair.over(transport) as client:
        for _ in range(3):
            with trio.CancelScope() as scope:
                response = await client.send(client.build_request("GET", f"{site.url}/stream/10"), stream=True)
                scope.cancel()
                await response.aclose()
            assert leases(transport) == 0
        with trio.fail_after(5):
            assert (await client.get(f"{site.url}/echo")).status_code == 200


async def test_an_unread_but_short_body_read_by_close_or_not_never_mixes_up_answers(pair: Pair) -> None:
    # redis-py #2665: a connection went back with its reply unread, and the next user read that.
    async def answer(visitor: Visitor, request: Request) -> None:
        await visitor.answer(request.target.encode() * 100)

    async with answering(answer) as origin, pair.client(limits=pair.limits(1)) as client:
        for number in range(20):
            response = await client.send(client.build_request("GET", f"{origin.url}/{number}"), stream=True)
            await response.aclose()
            assert (await client.get(f"{origin.url}/own{number}")).text == f"/own{number}" * 100


async def test_a_lease_is_counted_from_the_request_on(pair: Pair) -> None:
    proceed = trio.Event()

    async def late(visitor: Visitor, request: Request) -> None:
        await proceed.wait()
        await visitor.answer()

    transport = pair.make()
    async with answering(late) as origin, pair.over(transport) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.get, origin.url)
        await until(lambda: origin.requests)
        assert leases(transport) == 1
        proceed.set()
        await until_unleased(transport)
