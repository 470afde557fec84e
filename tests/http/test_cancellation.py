"""Cancelled at every checkpoint, a request loses no slot, leaks no socket and answers nobody else's question."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio

from nimblepool.testing import sweep
from tests.http.figures import check_books, leases, sockets, total, until_unleased
from tests.http.servers.http1 import Visitor, answering
from tests.http.servers.http2 import Stream, http2_serving
from tests.http.servers.listening import reset, serving, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.http.pairs import Client, Option, Pair
    from tests.http.servers.http1 import Request
    from tests.http.servers.tls import Certificates

PRIOR = {"http1": False, "http2": True}
SIZE = 2


async def answer(visitor: Visitor, request: Request) -> None:
    """Answer in pieces, so that there are checkpoints in mid-body."""
    body = request.target.encode() + request.body
    await visitor.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for part in (body[:5], body[5:]):
        if part:
            await visitor.send(b"%x\r\n" % len(part), part, b"\r\n")
            await trio.lowlevel.checkpoint()
    await visitor.send(b"0\r\n\r\n")


async def answer_stream(stream: Stream) -> None:
    await stream.ended.wait()
    body = stream.path.encode() + stream.body
    await stream.begin()
    for part in (body[:5], body[5:]):
        await stream.send(part)
        await trio.lowlevel.checkpoint()
    await stream.end()


class Asker:
    """Asks one question after the other, none twice, and checks the answers."""

    def __init__(self, client: Client, url: str) -> None:
        self.client = client
        self._url = url
        self._count = 0

    def next(self) -> str:
        self._count += 1
        return f"/question/{self._count}"

    async def get(self) -> None:
        path = self.next()
        assert (await self.client.get(self._url + path)).text == path

    async def post(self) -> None:
        async def body() -> AsyncIterator[bytes]:
            for part in (b"one", b"two"):
                await trio.lowlevel.checkpoint()
                yield part

        path = self.next()
        assert (await self.client.post(self._url + path, content=body())).text == f"{path}onetwo"

    async def read_in_pieces(self) -> None:
        path = self.next()
        async with self.client.stream("GET", self._url + path) as response:
            text = b""
            async for part in response.aiter_raw():
                text += part
            assert text == path.encode()

    async def close_early(self) -> None:
        async with self.client.stream("GET", self._url + self.next()) as response:
            assert response.status_code == 200

    async def wait_for_another(self) -> None:
        """Ask more questions at the same time than there are connections."""
        async with trio.open_nursery() as nursery:
            for _ in range(SIZE + 1):
                nursery.start_soon(self.get)


SCENARIOS: dict[str, Callable[[Asker], Awaitable[None]]] = {
    "get": Asker.get,
    "post": Asker.post,
    "read in pieces": Asker.read_in_pieces,
    "close early": Asker.close_early,
    "wait for another": Asker.wait_for_another,
}


async def swept(pair: Pair, url: str, scenario: str, *, keepalive: int, **options: Option) -> int:
    """Sweep over the scenario; afterwards every slot must be usable, and no socket too many open."""
    transport = pair.make(limits=pair.limits(SIZE, keepalive), **options)
    async with pair.over(transport) as client:
        asker = Asker(client, url)
        await asker.get()

        async def after() -> None:
            assert leases(transport) == 0
            assert total(transport, "waiting") == 0
            check_books(transport)

        runs = await sweep(lambda: SCENARIOS[scenario](asker), after)
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                for _ in range(3 * SIZE):
                    nursery.start_soon(asker.get)
        assert total(transport, "size") <= SIZE
        check_books(transport)
    return runs


# httpx's own generators, when a response's reader is cancelled.
@pytest.mark.filterwarnings("ignore:Async generator")
@pytest.mark.parametrize("keepalive", [SIZE, 0], ids=["kept alive", "a new connection each"])
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_http1_cancelled_anywhere(pair: Pair, scenario: str, keepalive: int) -> None:
    async with answering(answer) as origin:
        before = sockets()
        assert await swept(pair, origin.url, scenario, keepalive=keepalive) >= 2
        await origin.server.until_empty()
        assert sockets() == before


@pytest.mark.filterwarnings("ignore:Async generator")
@pytest.mark.parametrize("keepalive", [SIZE, 0], ids=["kept alive", "a new connection each"])
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_http2_cancelled_anywhere(pair: Pair, scenario: str, keepalive: int) -> None:
    async with http2_serving(answer_stream, max_streams=1) as origin:
        before = sockets()
        assert await swept(pair, origin.url, scenario, keepalive=keepalive, **PRIOR) >= 2
        await origin.server.until_empty()
        assert sockets() == before


@pytest.mark.filterwarnings("ignore:Async generator")
@pytest.mark.parametrize("http2", [False, True])
async def test_tls_cancelled_anywhere(pair: Pair, certificates: Certificates, http2: bool) -> None:
    serve: Any = http2_serving(answer_stream, tls=certificates.server("h2")) if http2 else None
    async with serve or answering(answer, tls=certificates.server()) as origin:
        before = sockets()
        options = {"verify": certificates.client(), "http2": http2}
        assert await swept(pair, origin.url, "get", keepalive=0, **options) > 3
        await origin.server.until_empty()
        assert sockets() == before


async def test_a_cancellation_is_delivered_as_such(pair: Pair) -> None:
    async def never(visitor: Visitor, request: Request) -> None:
        await trio.sleep_forever()

    async with answering(never) as origin, pair.client() as client:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def ask() -> None:
                    with pytest.raises(trio.Cancelled):
                        await client.get(origin.url)
                    await trio.lowlevel.checkpoint()

                nursery.start_soon(ask)
                await until(lambda: origin.requests)
                scope.cancel()
        assert scope.cancelled_caught


async def test_a_clean_up_that_fails_does_not_replace_the_cancellation(pair: Pair, certificates: Certificates) -> None:
    # psycopg_pool #1412: an exception in clean-up came out in place of the cancellation.
    async def break_off(stream: trio.SSLStream[trio.SocketStream]) -> None:
        visitor = Visitor(stream, 1)
        await visitor.request()
        await visitor.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await proceed.wait()
        reset(stream.transport_stream)
        broken.set()

    proceed, broken = trio.Event(), trio.Event()
    transport = pair.make(verify=certificates.client())
    async with serving(break_off, tls=certificates.server()) as server, pair.over(transport) as client:
        with trio.CancelScope() as scope:
            async with client.stream("GET", server.url) as response:
                assert response.status_code == 200
                proceed.set()
                await broken.wait()
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert leases(transport) == 0
        check_books(transport)


async def test_a_waiter_cancelled_as_it_is_served_passes_its_connection_on(pair: Pair) -> None:
    # httpcore #830, #1093: cancelled after a connection was assigned, before it was used, the slot was lost.
    transport = pair.make(limits=pair.limits(1))
    async with answering(answer) as origin, pair.over(transport) as client:
        asker = Asker(client, origin.url)
        for _ in range(20):
            async with trio.open_nursery() as nursery:
                scopes = [trio.CancelScope() for _ in range(3)]

                async def ask(scope: trio.CancelScope) -> None:
                    with scope:
                        await asker.get()

                async with client.stream("GET", f"{origin.url}/first") as response:
                    for scope in scopes:
                        nursery.start_soon(ask, scope)
                    await until(lambda: total(transport, "waiting") == 3)
                    await response.aread()
                scopes[0].cancel()
                scopes[1].cancel()
        assert leases(transport) == 0
        with trio.fail_after(5):
            await asker.get()
        check_books(transport)


async def test_a_connect_outlives_the_request_that_asked_for_it(pair: Pair, certificates: Certificates) -> None:
    # pgx #1259: short deadlines cancelled every connect, so that none was ever finished.
    proceed = trio.Event()

    async def late(stream: trio.abc.Stream) -> None:
        await proceed.wait()
        async with trio.SSLStream(stream, certificates.server(), server_side=True) as secure:
            visitor = Visitor(secure, 1)
            while await visitor.request() is not None:
                await visitor.answer()

    transport = pair.make(limits=pair.limits(1), verify=certificates.client())
    async with serving(late) as server, pair.over(transport) as client:
        url = f"https://localhost:{server.port}"
        with trio.move_on_after(0.05):
            await client.get(url)
        assert leases(transport) == 0
        proceed.set()
        await until(lambda: total(transport, "idle") == 1)
        assert (await client.get(url)).text == "ok"
        assert server.accepted == 1


async def test_a_failed_connect_of_nobody_s_harms_nobody(pair: Pair) -> None:
    transport = pair.make()
    async with answering(answer) as origin, pair.over(transport) as client:
        for _ in range(20):
            with trio.CancelScope() as scope:
                scope.cancel()
                await client.get("http://127.0.0.1:1/")
            with trio.move_on_after(0.001), suppress(pair.httpx.ConnectError):
                await client.get("http://127.0.0.1:1/")
        await until_unleased(transport)
        await Asker(client, origin.url).get()
        check_books(transport)
