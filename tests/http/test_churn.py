"""Seconds of traffic with random cancellations, failures and half-read answers; afterwards nothing is missing."""

from __future__ import annotations

import zlib
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.http.figures import check_books, leases, sockets, total, until_unleased
from tests.http.servers.http1 import Origin, Visitor, answering
from tests.http.servers.http2 import Stream, http2_serving
from tests.http.servers.listening import pause

if TYPE_CHECKING:
    from tests.http.pairs import Client, Pair, Transport
    from tests.http.servers.http1 import Request

SECONDS = 3.0
SIZE = 8
TASKS = 25


async def moody(visitor: Visitor, request: Request) -> bool:
    """Answer most requests, in one of many ways."""
    body = request.target.encode()
    match zlib.crc32(body) % 12:
        case 0:
            return False
        case 1:
            await visitor.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
            return False
        case 2:
            await visitor.send(b"garbage\r\n\r\n")
            return False
        case 3:
            await trio.sleep(0.02)
            await visitor.answer(body)
        case 4:
            await visitor.answer(body)
            return False
        case 5:
            await visitor.answer(body, "Connection: close")
            return False
        case _:
            await visitor.answer(body)
    return True


async def moody_stream(stream: Stream) -> None:
    match zlib.crc32(stream.path.encode()) % 12:
        case 0:
            await stream.reset(2)
        case 1:
            await stream.begin()
            await stream.send(b"half")
            await stream.reset(7)
        case 2 if stream.number > 20:
            await stream.visitor.goaway(stream.number)
            await stream.answer(stream.path.encode())
        case 3 if stream.number > 30:
            await stream.visitor.stream.aclose()
        case 4:
            await trio.sleep(0.02)
            await stream.answer(stream.path.encode())
        case _:
            await stream.answer(stream.path.encode())


class Traffic:
    """Tasks that ask, in every way there is, until told to stop."""

    def __init__(self, pair: Pair, client: Client, urls: list[str]) -> None:
        self._errors = pair.httpx.TransportError
        self._client = client
        self._urls = urls
        self._random = Random(6)
        self._count = 0
        self.answered = 0
        self.failed = 0
        self.cancelled = 0

    async def run(self) -> None:
        end = trio.current_time() + SECONDS
        while trio.current_time() < end:
            with trio.CancelScope() as scope:
                if self._random.random() < 0.3:
                    scope.deadline = trio.current_time() + self._random.random() * 0.01
                try:
                    await self._ask()
                except self._errors:
                    self.failed += 1
                else:
                    self.answered += 1
            self.cancelled += scope.cancelled_caught
            await trio.lowlevel.checkpoint()

    async def _ask(self) -> None:
        self._count += 1
        path = f"/{self._count}"
        url = f"{self._random.choice(self._urls)}{path}"
        match self._random.randrange(4):
            case 0:
                assert (await self._client.post(url, content=b"x" * self._random.randrange(50_000))).text == path
            case 1:
                async with self._client.stream("GET", url):
                    await trio.sleep(self._random.random() * 0.002)
            case _:
                assert (await self._client.get(url)).text == path


async def churn(pair: Pair, transport: Transport, origins: list[Any]) -> None:
    async with pair.over(transport, timeout=pair.httpx.Timeout(5.0, pool=2.0)) as client:
        traffic = Traffic(pair, client, [origin.url for origin in origins])
        async with trio.open_nursery() as nursery:
            for _ in range(TASKS):
                nursery.start_soon(traffic.run)
        assert min(traffic.answered, traffic.failed, traffic.cancelled) > 20, vars(traffic)
        await until_unleased(transport)
        assert total(transport, "waiting") == 0
        assert total(transport, "size") <= SIZE
        check_books(transport)
        await every_slot_is_usable(client, transport, origins)
        check_books(transport)


async def every_slot_is_usable(client: Client, transport: Transport, origins: list[Any]) -> None:
    """Hold as many requests at a time as there are slots."""
    url = f"{origins[0].url}/hold"
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            done = trio.Event()

            async def hold() -> None:
                async with client.stream("GET", url) as response:
                    await done.wait()
                    await response.aread()

            for _ in range(SIZE):
                nursery.start_soon(hold)
            while leases(transport) < SIZE:
                await pause()
            done.set()


# httpx's own generators, when a response's reader is cancelled.
@pytest.mark.filterwarnings("ignore:Async generator")
async def test_churn_over_http1_loses_no_slot_and_no_socket(pair: Pair) -> None:
    async with answering(moody) as one, answering(moody) as two, answering(moody) as three:
        before = sockets()
        origins: list[Origin] = [one, two, three]
        await churn(pair, pair.make(limits=pair.limits(SIZE, SIZE // 2, 0.05)), origins)
        for origin in origins:
            await origin.server.until_empty()
        assert sockets() == before


@pytest.mark.filterwarnings("ignore:Async generator")
async def test_churn_over_http2_loses_no_slot_and_no_socket(pair: Pair) -> None:
    async with (
        http2_serving(moody_stream, max_streams=4) as one,
        http2_serving(moody_stream, max_streams=1) as two,
    ):
        before = sockets()
        await churn(pair, pair.make(limits=pair.limits(SIZE, SIZE // 2, 0.05), http1=False, http2=True), [two, one])
        for origin in (one, two):
            await origin.server.until_empty()
        assert sockets() == before
