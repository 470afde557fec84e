"""After 101, or a CONNECT of the user's own, the lease stays with the stream until the response is closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from tests.http.figures import check_books, leases, total
from tests.http.servers.http1 import Visitor, answering

if TYPE_CHECKING:
    from tests.http.pairs import NetworkStream, Pair
    from tests.http.servers.http1 import Request

UPGRADE = {"Connection": "Upgrade", "Upgrade": "echo"}


async def echo(visitor: Visitor, request: Request) -> bool:
    """Switch protocols and send back, in capitals, what comes."""
    if request.headers.get("upgrade") != "echo" and request.method != "CONNECT":
        await visitor.answer(b"plain")
        return True
    if request.method == "CONNECT":
        await visitor.send(b"HTTP/1.1 200 Connected\r\n\r\nWELCOME ")
    else:
        await visitor.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nWELCOME ")
    while data := await visitor.stream.receive_some(4096):
        await visitor.send(bytes(data).upper())
    return False


async def read(stream: NetworkStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += await stream.read(4096)
    return data


@pytest.mark.parametrize("method", ["GET", "CONNECT"])
async def test_the_stream_speaks_the_new_protocol_under_the_same_lease(pair: Pair, method: str) -> None:
    transport = pair.make(limits=pair.limits(1))
    async with answering(echo) as origin, pair.over(transport, timeout=pair.timeout(pool=0.1)) as client:
        extensions = {"target": f"127.0.0.1:{origin.server.port}".encode()} if method == "CONNECT" else {}
        headers = UPGRADE if method == "GET" else {}
        async with client.stream(method, origin.url, headers=headers, extensions=extensions) as response:
            assert response.status_code == (101 if method == "GET" else 200)
            stream = response.extensions["network_stream"]
            assert await read(stream, 8) == b"WELCOME "
            for word in (b"one", b"two"):
                await stream.write(word)
                assert await read(stream, 3) == word.upper()
            assert leases(transport) == 1
            with pytest.raises(pair.httpx.PoolTimeout):
                await client.get(origin.url)
        assert leases(transport) == 0
        assert total(transport, "idle") == 0
        await origin.server.until_empty()
        assert (await client.get(origin.url)).text == "plain"
        check_books(transport)


async def test_a_refused_upgrade_is_an_ordinary_response(pair: Pair) -> None:
    async def refuse(visitor: Visitor, request: Request) -> None:
        await visitor.answer(b"no", status="426 Upgrade Required")

    async with answering(refuse) as origin, pair.client() as client:
        for _ in range(2):
            response = await client.get(origin.url, headers=UPGRADE)
            assert (response.status_code, response.text) == (426, "no")
        assert origin.server.accepted == 1


async def test_an_upgraded_connection_is_closed_with_the_transport(pair: Pair) -> None:
    async with answering(echo) as origin:
        async with pair.client() as client:
            request = client.build_request("GET", origin.url, headers=UPGRADE)
            response = await client.send(request, stream=True)
            assert response.status_code == 101
        with trio.fail_after(5):
            await origin.server.until_empty()
        await response.aclose()


async def test_a_cancelled_user_of_an_upgraded_connection_gives_it_back(pair: Pair) -> None:
    transport = pair.make(limits=pair.limits(1))
    async with answering(echo) as origin, pair.over(transport) as client:
        with trio.move_on_after(0.05) as scope:
            async with client.stream("GET", origin.url, headers=UPGRADE) as response:
                stream = response.extensions["network_stream"]
                await read(stream, 1000)
        assert scope.cancelled_caught
        assert leases(transport) == 0
        assert (await client.get(origin.url)).text == "plain"


async def test_closing_the_stream_itself_and_then_the_response_is_fine(pair: Pair) -> None:
    transport = pair.make()
    async with answering(echo) as origin, pair.over(transport) as client:
        async with client.stream("GET", origin.url, headers=UPGRADE) as response:
            await response.extensions["network_stream"].aclose()
        assert leases(transport) == 0
        assert total(transport, "idle") == 0
        check_books(transport)
