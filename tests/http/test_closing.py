"""Nothing outlives the client's block: no connection, no task, no lease; and its errors come out as they went in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from nimblepool import PoolClosed
from tests.http.figures import check_books, leases, sockets, total
from tests.http.servers.hanging import nobody_accepts
from tests.http.servers.http1 import Visitor, answering
from tests.http.servers.http2 import Stream, http2_serving
from tests.http.servers.listening import serving, until

if TYPE_CHECKING:
    from tests.http.pairs import Pair
    from tests.http.servers.http1 import Request
    from tests.http.servers.tls import Certificates

PRIOR = {"http1": False, "http2": True}


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def test_idle_connections_are_closed_with_the_client(pair: Pair) -> None:
    async with answering() as origin:
        before, tasks_before = sockets(), tasks()
        async with pair.client() as client, trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(client.get, origin.url)
        # Not a moment later: this end is closed when the block has been left.
        await origin.server.until_empty()
        assert (sockets(), tasks()) == (before, tasks_before)


async def test_idle_tls_connections_are_closed_even_if_the_server_has_stopped_reading(
    pair: Pair, certificates: Certificates
) -> None:
    async def answer_and_hang(stream: trio.SSLStream[trio.SocketStream]) -> None:
        await Visitor(stream, 1).request()
        await Visitor(stream, 1).answer()
        await trio.sleep_forever()

    async with serving(answer_and_hang, tls=certificates.server()) as server:
        with trio.fail_after(5):
            async with pair.client(verify=certificates.client()) as client:
                await client.get(server.url)


async def test_opening_connections_are_given_up_with_the_client(pair: Pair) -> None:
    with nobody_accepts() as url:
        before, tasks_before = sockets(), tasks()
        with trio.fail_after(5):
            async with pair.client(timeout=None) as client, trio.open_nursery() as nursery:
                nursery.start_soon(client.get, url)
                await until(lambda: sockets() > before)
                nursery.cancel_scope.cancel()
        assert (sockets(), tasks()) == (before, tasks_before)


@pytest.mark.parametrize("options", [{}, PRIOR], ids=["http/1.1", "http/2"])
async def test_requests_in_flight_fail_with_httpx_s_errors_when_the_client_is_closed(
    pair: Pair, options: dict[str, Any]
) -> None:
    async def never(_visitor: Visitor, request: Request) -> None:
        await trio.sleep_forever()

    async def never_stream(stream: Stream) -> None:
        await trio.sleep_forever()

    serve: Any = http2_serving(never_stream) if options else answering(never)
    transport = pair.make(**options)
    failures: list[BaseException] = []
    async with serve as origin:
        with trio.fail_after(15):
            async with trio.open_nursery() as nursery, pair.over(transport, timeout=None) as client:

                async def ask() -> None:
                    try:
                        await client.get(origin.url)
                    except Exception as error:
                        failures.append(error)

                for _ in range(3):
                    nursery.start_soon(ask)
                await until(lambda: leases(transport) == 3)
        assert [type(failure) for failure in failures if not isinstance(failure, pair.httpx.TransportError)] == []
        assert len(failures) == 3
        check_books(transport)


async def test_requests_in_the_queue_fail_when_the_client_is_closed(pair: Pair) -> None:
    async def never(visitor: Visitor, request: Request) -> None:
        await trio.sleep_forever()

    transport = pair.make(limits=pair.limits(1))
    failures: list[BaseException] = []
    async with answering(never) as origin:
        with trio.fail_after(15):
            async with trio.open_nursery() as nursery, pair.over(transport, timeout=None) as client:

                async def ask() -> None:
                    try:
                        await client.get(origin.url)
                    except Exception as error:
                        failures.append(error)

                for _ in range(4):
                    nursery.start_soon(ask)
                await until(lambda: total(transport, "waiting") == 3)
        assert len(failures) == 4
        for failure in failures:
            assert isinstance(failure, (pair.httpx.TransportError, PoolClosed)), repr(failure)


async def test_a_request_after_the_close_is_refused(pair: Pair) -> None:
    transport = pair.make()
    async with answering() as origin:
        async with pair.over(transport) as client:
            await client.get(origin.url)
        with pytest.raises((RuntimeError, PoolClosed, pair.httpx.TransportError)):
            await transport.handle_async_request(pair.httpx.Request("GET", origin.url))
        assert len(origin.requests) == 1


async def test_closing_twice_is_fine(pair: Pair) -> None:
    transport = pair.make()
    async with answering() as origin, pair.over(transport) as client:
        await client.get(origin.url)
        await transport.aclose()
        await transport.aclose()
    await transport.aclose()


async def test_an_error_of_the_block_comes_out_as_it_went_in(pair: Pair) -> None:
    async with answering() as origin:
        with pytest.raises(KeyError, match="mine"):
            async with pair.client() as client:
                await client.get(origin.url)
                raise KeyError("mine")
        await origin.server.until_empty()


async def test_a_cancelled_block_closes_everything(pair: Pair) -> None:
    async with answering() as origin:
        before = sockets()
        with trio.CancelScope() as scope:
            async with pair.client() as client:
                await client.get(origin.url)
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        await origin.server.until_empty()
        assert sockets() == before


async def test_an_exception_in_the_block_is_not_replaced_by_one_of_an_open_response(pair: Pair) -> None:
    async def never_ends(visitor: Visitor, request: Request) -> None:
        await visitor.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        await visitor.until_gone()

    async with answering(never_ends) as origin:
        with pytest.raises(KeyError, match="mine"):
            async with pair.client() as client, client.stream("GET", origin.url):
                raise KeyError("mine")
        await origin.server.until_empty()


async def test_two_clients_do_not_share(pair: Pair) -> None:
    async with answering() as origin, pair.client() as one, pair.client() as two:
        await one.get(origin.url)
        await two.get(origin.url)
        assert origin.server.accepted == 2


async def test_a_transport_may_be_mounted_beside_others(pair: Pair) -> None:
    async with answering() as one, answering() as two:
        mounts = {one.url: pair.make(limits=pair.limits(1)), two.url: pair.make(limits=pair.limits(1))}
        async with pair.httpx.AsyncClient(mounts=mounts, timeout=10.0) as client:
            assert (await client.get(one.url)).text == "ok"
            assert (await client.get(two.url)).text == "ok"
            assert [total(transport, "size") for transport in mounts.values()] == [1, 1]
        await one.server.until_empty()
        await two.server.until_empty()
