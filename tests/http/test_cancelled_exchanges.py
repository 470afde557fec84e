"""A request that is cancelled, or runs out of time, in any stage of its exchange leaves the transport as it should be.

What httpcore's own tests of cancellation ask of a pool; for HTTP/2 they are expected failures there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from tests.http.figures import check_books, leases, total
from tests.http.servers.http1 import OK, Visitor, scripted
from tests.http.servers.http2 import Stream, http2_serving
from tests.http.servers.listening import pause, serving, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.http.pairs import Client, Pair

PRIOR = {"http1": False, "http2": True}
STAGES = pytest.mark.parametrize("stage", ["request", "headers", "body"])
WAYS = pytest.mark.parametrize("way", ["cancelled", "timed out"])


async def endless() -> AsyncIterator[bytes]:
    while True:
        await trio.lowlevel.checkpoint()
        yield b"x" * 100_000


async def ask_in_vain(pair: Pair, client: Client, url: str, stage: str, way: str) -> None:
    """Make a request that gets stuck in the stage."""
    timeout = pair.timeout(read=0.05, write=0.05) if way == "timed out" else None
    with trio.move_on_after(0.05 if way == "cancelled" else 5.0) as scope:
        content = endless() if stage == "request" else None
        if way == "cancelled":
            await client.request("POST", f"{url}/{stage}", content=content, timeout=None)
        else:
            with pytest.raises(pair.httpx.TimeoutException):
                await client.request("POST", f"{url}/{stage}", content=content, timeout=timeout)
    assert scope.cancelled_caught == (way == "cancelled")


# httpx's own generators, when the sending of a body, or the reading of a response, is cut short.
@pytest.mark.filterwarnings("ignore:Async generator")
@STAGES
@WAYS
async def test_an_http1_connection_in_mid_exchange_is_closed(pair: Pair, stage: str, way: str) -> None:
    async def stick(visitor: Visitor) -> None:
        while (head := await visitor.head()) is not None:
            if head.target == "/request":
                await trio.sleep_forever()
            while await visitor.chunk():
                pass
            if head.target == "/body":
                await visitor.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
            if head.target != "/":
                await visitor.until_gone()
                return
            await visitor.send(OK)

    transport = pair.make(limits=pair.limits(1))
    async with scripted(stick) as server, pair.over(transport) as client:
        for _ in range(2):
            await ask_in_vain(pair, client, server.url, stage, way)
            assert (leases(transport), total(transport, "idle")) == (0, 0)
            await until(lambda: not total(transport, "closing"))
            with trio.fail_after(5):
                assert (await client.get(server.url)).text == "ok"
        check_books(transport)


@pytest.mark.filterwarnings("ignore:Async generator")
@STAGES
@WAYS
async def test_an_http2_exchange_cut_short_leaves_the_others_of_its_connection_alone(
    pair: Pair, stage: str, way: str
) -> None:
    proceed = trio.Event()

    async def stick(stream: Stream) -> None:
        stream.reads = stream.path != "/request"
        if stream.path == "/kept":
            await proceed.wait()
        if stream.path == "/body":
            await stream.begin()
            await stream.send(b"half")
        if stream.path in {"/kept", "/"}:
            await stream.answer(stream.path.encode())

    transport = pair.make(**PRIOR)
    async with http2_serving(stick) as origin, pair.over(transport) as client:
        answers: list[str] = []

        async def ask() -> None:
            answers.append((await client.get(f"{origin.url}/kept")).text)

        assert (await client.get(origin.url)).text == "/"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await until(lambda: len(origin.streams) == 2)
            await ask_in_vain(pair, client, origin.url, stage, way)
            assert leases(transport) == 1
            with trio.fail_after(5):
                assert (await client.get(origin.url)).text == "/"
            proceed.set()
        assert answers == ["/kept"]
        assert leases(transport) == 0
        check_books(transport)


async def test_an_http2_handshake_that_nobody_answers_costs_its_requests_alone(pair: Pair) -> None:
    async def silent(stream: trio.abc.Stream) -> None:
        while await stream.receive_some(4096):
            pass

    transport = pair.make(limits=pair.limits(1), **PRIOR)
    async with serving(silent) as server, pair.over(transport) as client:
        for _ in range(3):
            with trio.move_on_after(0.05):
                await client.get(server.url)
            assert leases(transport) == 0
            await pause()
        check_books(transport)
