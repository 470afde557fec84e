"""The four timeouts raise httpx's exceptions, cost one connection at most, and no slot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from tests.http.figures import check_books, leases, total
from tests.http.servers.hanging import nobody_accepts, nobody_listens
from tests.http.servers.http1 import OK, Visitor, answering, scripted
from tests.http.servers.http2 import Stream, http2_serving
from tests.http.servers.listening import serving, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.http.pairs import Pair
    from tests.http.servers.http1 import Request
    from tests.http.servers.tls import Certificates

SHORT = 0.05
PRIOR = {"http1": False, "http2": True}


async def never(_: object) -> None:
    await trio.sleep_forever()


async def test_a_connect_that_takes_too_long_is_a_connect_timeout(pair: Pair) -> None:
    with nobody_accepts() as url:
        async with pair.client(timeout=pair.timeout(connect=SHORT)) as client:
            with pytest.raises(pair.httpx.ConnectTimeout) as raised:
                await client.get(url)
            assert raised.value.request.url == url


async def test_a_handshake_that_takes_too_long_is_a_connect_timeout(pair: Pair, certificates: Certificates) -> None:
    async with serving(never) as server:
        options = {"verify": certificates.client(), "timeout": pair.timeout(connect=SHORT)}
        async with pair.client(**options) as client:
            with pytest.raises(pair.httpx.ConnectTimeout):
                await client.get(f"https://127.0.0.1:{server.port}")


async def test_a_refused_connect_is_a_connect_error_at_once(pair: Pair) -> None:
    with nobody_listens() as url:
        async with pair.client(timeout=60.0) as client:
            for _ in range(12):
                with trio.fail_after(5), pytest.raises(pair.httpx.ConnectError):
                    await client.get(url)


async def test_a_host_that_does_not_exist_is_a_connect_error(pair: Pair) -> None:
    async with pair.client() as client:
        with pytest.raises(pair.httpx.ConnectError):
            await client.get("http://nowhere.invalid/")


async def test_an_answer_that_takes_too_long_is_a_read_timeout_and_costs_its_connection(pair: Pair) -> None:
    async def slow_once(visitor: Visitor, request: Request) -> None:
        if request.target == "/slow":
            await trio.sleep_forever()
        await visitor.send(OK)

    transport = pair.make()
    async with answering(slow_once) as origin, pair.over(transport, timeout=pair.timeout(read=SHORT)) as client:
        with pytest.raises(pair.httpx.ReadTimeout):
            await client.get(f"{origin.url}/slow")
        assert leases(transport) == 0
        assert (await client.get(origin.url)).text == "ok"
        assert origin.server.accepted == 2
        check_books(transport)


async def test_a_body_that_takes_too_long_is_a_read_timeout(pair: Pair) -> None:
    async def half(visitor: Visitor, request: Request) -> None:
        await visitor.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await trio.sleep_forever()

    transport = pair.make()
    async with (
        answering(half) as origin,
        pair.over(transport, timeout=pair.timeout(read=SHORT)) as client,
        client.stream("GET", origin.url) as response,
    ):
        assert leases(transport) == 1
        with pytest.raises(pair.httpx.ReadTimeout):
            await response.aread()
        assert leases(transport) == 0


# httpx leaves the generator of a body that failed to the collector.
@pytest.mark.filterwarnings("ignore:Async generator")
async def test_a_request_that_nobody_reads_is_a_write_timeout(pair: Pair) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            await trio.lowlevel.checkpoint()
            yield b"x" * 1_000_000

    transport = pair.make()
    async with serving(never) as server, pair.over(transport, timeout=pair.timeout(write=SHORT, read=SHORT)) as client:
        # The write time-out ends the sending; httpcore then looks whether there is an answer to what was sent.
        with pytest.raises((pair.httpx.WriteTimeout, pair.httpx.ReadTimeout)) as raised:
            await client.post(server.url, content=endless())
        assert isinstance(raised.value, pair.httpx.WriteTimeout)
        assert leases(transport) == 0


async def test_a_wait_for_a_connection_that_takes_too_long_is_a_pool_timeout(pair: Pair) -> None:
    transport = pair.make(limits=pair.limits(1))
    async with answering() as origin, pair.over(transport, timeout=pair.timeout(pool=SHORT)) as client:
        async with client.stream("GET", origin.url) as response:
            for _ in range(3):
                with pytest.raises(pair.httpx.PoolTimeout) as raised:
                    await client.get(origin.url)
                assert raised.value.request.url == origin.url
            await response.aread()
        assert (await client.get(origin.url)).text == "ok"
        assert origin.server.accepted == 1
        assert total(transport, "waiting") == 0
        check_books(transport)


async def test_a_pool_timeout_of_zero_is_no_hindrance_while_there_is_room(pair: Pair) -> None:
    async with answering() as origin, pair.client(timeout=pair.timeout(pool=0.0), limits=pair.limits(1)) as client:
        assert (await client.get(origin.url)).text == "ok"
        assert (await client.get(origin.url)).text == "ok"


async def test_no_timeout_is_no_timeout(pair: Pair) -> None:
    async with answering() as origin, pair.client(timeout=None, limits=pair.limits(1)) as client:

        async def ask() -> None:
            assert (await client.get(origin.url)).text == "ok"

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask)


async def test_the_pool_timeout_does_not_cover_the_connect(pair: Pair, certificates: Certificates) -> None:
    proceed = trio.Event()

    async def late(stream: trio.abc.Stream) -> None:
        await proceed.wait()
        async with trio.SSLStream(stream, certificates.server(), server_side=True) as secure:
            await Visitor(secure, 1).request()
            await secure.send_all(OK)
            await trio.sleep_forever()

    timeout = pair.timeout(pool=SHORT)
    async with (
        serving(late) as server,
        pair.client(timeout=timeout, verify=certificates.client()) as client,
        trio.open_nursery() as nursery,
    ):

        async def release() -> None:
            await server.until(lambda: server.living)
            await trio.sleep(3 * SHORT)
            proceed.set()

        nursery.start_soon(release)
        assert (await client.get(f"https://localhost:{server.port}")).text == "ok"


async def test_the_connect_timeout_does_not_cover_the_queue(pair: Pair) -> None:
    async with answering() as origin, pair.client(timeout=pair.timeout(connect=SHORT), limits=pair.limits(1)) as client:
        async with trio.open_nursery() as nursery, client.stream("GET", origin.url) as response:
            nursery.start_soon(client.get, origin.url)
            await trio.sleep(3 * SHORT)
            await response.aread()
        assert len(origin.requests) == 2


async def test_waiting_for_a_stream_of_http2_honours_the_pool_timeout(pair: Pair) -> None:
    async def hold(stream: Stream) -> None:
        if stream.path == "/held":
            await trio.sleep_forever()
        await stream.answer()

    transport = pair.make(limits=pair.limits(1), **PRIOR)
    async with (
        http2_serving(hold, max_streams=1) as origin,
        pair.over(transport, timeout=pair.timeout(pool=SHORT)) as client,
        trio.open_nursery() as nursery,
    ):
        assert (await client.get(origin.url)).text == "ok"
        nursery.start_soon(client.get, f"{origin.url}/held")
        await until(lambda: len(origin.streams) == 2)
        with pytest.raises(pair.httpx.PoolTimeout):
            await client.get(origin.url)
        nursery.cancel_scope.cancel()


async def test_a_read_timeout_of_one_http2_stream_leaves_the_others_alone(pair: Pair) -> None:
    proceed = trio.Event()

    async def answer(stream: Stream) -> None:
        if stream.path == "/never":
            await trio.sleep_forever()
        await stream.begin()
        await stream.send(b"first ")
        await proceed.wait()
        await stream.send(b"second")
        await stream.end()

    async with (
        http2_serving(answer) as origin,
        pair.client(**PRIOR) as client,
        client.stream("GET", f"{origin.url}/long") as response,
    ):
        parts = response.aiter_raw()
        assert await anext(parts) == b"first "
        with pytest.raises(pair.httpx.ReadTimeout):
            await client.get(f"{origin.url}/never", timeout=pair.timeout(read=SHORT))
        proceed.set()
        assert b"".join([part async for part in parts]) == b"second"


async def test_the_timeout_extension_of_a_request_is_what_counts(pair: Pair) -> None:
    async with scripted(lambda visitor: visitor.until_gone()) as server, pair.client(timeout=60.0) as client:
        request = client.build_request("GET", server.url, extensions={"timeout": {"read": SHORT}})
        with pytest.raises(pair.httpx.ReadTimeout):
            await client.send(request)
