"""A server that misbehaves costs the request that met it, and nobody else."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
import trio

from tests.http.figures import check_books, leases, total
from tests.http.servers.http1 import OK, Visitor, answering, scripted
from tests.http.servers.listening import reset

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.http.pairs import Pair
    from tests.http.servers.http1 import Request
    from tests.http.servers.tls import Certificates

GARBAGE = {
    "no http at all": b"220 mail.example.test ESMTP\r\n\r\n",
    "binary": bytes(range(256)),
    "a status of letters": b"HTTP/1.1 abc OK\r\n\r\n",
    "a header without a colon": b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a length of letters": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
    "broken chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n",
    "half a head": b"HTTP/1.1 200 O",
    "nothing": b"",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
    "half a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhalf",
}


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_garbage_is_a_remote_protocol_error_and_the_next_request_is_fine(pair: Pair, garbage: str) -> None:
    async def answer(visitor: Visitor, request: Request) -> bool:
        if request.target == "/good":
            await visitor.send(OK)
            return True
        await visitor.send(GARBAGE[garbage])
        return False

    transport = pair.make(limits=pair.limits(1))
    async with answering(answer) as origin, pair.over(transport) as client:
        for _ in range(3):
            with pytest.raises(pair.httpx.RemoteProtocolError) as raised:
                await client.get(f"{origin.url}/bad")
            assert raised.value.request.url == f"{origin.url}/bad"
            assert leases(transport) == 0
            assert (await client.get(f"{origin.url}/good")).text == "ok"
        check_books(transport)


async def test_a_reset_in_mid_body_is_a_read_error(pair: Pair) -> None:
    async def answer(visitor: Visitor, request: Request) -> bool:
        await visitor.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        assert isinstance(visitor.stream, trio.SocketStream)
        reset(visitor.stream)
        return False

    transport = pair.make()
    async with answering(answer) as origin, pair.over(transport) as client:
        with pytest.raises(pair.httpx.ReadError):
            await client.get(origin.url)
        assert leases(transport) == 0


async def test_a_body_longer_than_announced_spoils_its_connection_and_no_other_answer(pair: Pair) -> None:
    async def answer(visitor: Visitor, request: Request) -> None:
        await visitor.send(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
        )

    async with answering(answer) as origin, pair.client(limits=pair.limits(1)) as client:
        for _ in range(5):
            assert (await client.get(origin.url)).text == "ok"
        assert origin.server.accepted == 5


async def test_an_answer_that_nobody_asked_for_within_tls_is_never_the_next_one(
    pair: Pair, certificates: Certificates
) -> None:
    async def answer(visitor: Visitor, request: Request) -> None:
        assert isinstance(visitor.stream, trio.SSLStream)
        connection = visitor.stream.transport_stream
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)  # two records, which arrive together
        await visitor.answer()
        await visitor.answer(b"forged")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)

    client = pair.client(limits=pair.limits(1), verify=certificates.client())
    async with answering(answer, tls=certificates.server()) as origin, client:
        for _ in range(3):
            assert (await client.get(origin.url)).text == "ok"
        assert origin.server.accepted == 3


async def test_an_unannounced_body_after_204_never_becomes_the_next_answer(pair: Pair) -> None:
    async def answer(visitor: Visitor, request: Request) -> None:
        await visitor.send(b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")

    async with answering(answer) as origin, pair.client(limits=pair.limits(1)) as client:
        for _ in range(3):
            assert (await client.get(origin.url)).status_code == 204


async def test_a_head_that_comes_byte_by_byte_is_read(pair: Pair) -> None:
    async def answer(visitor: Visitor, request: Request) -> None:
        for byte in OK:
            await visitor.send(bytes([byte]))
            await trio.lowlevel.checkpoint()

    async with answering(answer) as origin, pair.client() as client:
        assert (await client.get(origin.url)).text == "ok"
        assert (await client.get(origin.url)).text == "ok"
        assert origin.server.accepted == 1


async def test_a_head_that_never_ends_is_refused(pair: Pair) -> None:
    async def answer(visitor: Visitor, request: Request) -> None:
        await visitor.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            await visitor.send(b"X-Filler: " + b"x" * 1000 + b"\r\n")

    transport = pair.make()
    async with answering(answer) as origin, pair.over(transport) as client:
        with pytest.raises(pair.httpx.RemoteProtocolError):
            await client.get(origin.url)
        assert total(transport, "size") == 0


@pytest.mark.parametrize("answer", [b"Connection: close\r\n", b"connection: keep-alive, Close\r\n"])
async def test_connection_close_is_obeyed(pair: Pair, answer: bytes) -> None:
    async def close(visitor: Visitor, request: Request) -> bool:
        await visitor.send(b"HTTP/1.1 200 OK\r\n", answer, b"Content-Length: 2\r\n\r\nok")
        return True

    transport = pair.make()
    async with answering(close) as origin, pair.over(transport) as client:
        for expected in (1, 2, 3):
            assert (await client.get(origin.url)).text == "ok"
            assert origin.server.accepted == expected
            assert total(transport, "idle") == 0
        await origin.server.until_empty()


async def test_a_client_s_connection_close_is_obeyed(pair: Pair) -> None:
    async with answering() as origin, pair.client() as client:
        for _ in range(2):
            await client.get(origin.url, headers={"Connection": "close"})
        assert origin.server.accepted == 2
        await origin.server.until_empty()


async def test_http_1_0_closes_after_each_answer(pair: Pair) -> None:
    async def answer(visitor: Visitor, request: Request) -> bool:
        await visitor.send(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")
        return False

    async with answering(answer) as origin, pair.client() as client:
        for _ in range(3):
            response = await client.get(origin.url)
            assert (response.text, response.http_version) == ("until the end", "HTTP/1.0")
        assert origin.server.accepted == 3


async def test_a_body_that_ends_with_the_connection_is_read_whole(pair: Pair) -> None:
    async def answer(visitor: Visitor, request: Request) -> bool:
        await visitor.send(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1_000_000)
        return False

    transport = pair.make()
    async with answering(answer) as origin, pair.over(transport) as client:
        for expected in (1, 2):
            assert len((await client.get(origin.url)).content) == 1_000_000
            assert origin.server.accepted == expected


async def test_interim_answers_are_passed_over(pair: Pair) -> None:
    async def answer(visitor: Visitor, request: Request) -> None:
        await visitor.send(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", OK)

    async with answering(answer) as origin, pair.client() as client:
        for _ in range(2):
            response = await client.post(origin.url, content=b"x", headers={"Expect": "100-continue"})
            assert (response.status_code, response.text) == (200, "ok")
        assert origin.server.accepted == 1


# httpx's own generator, when the sending of a body is given up.
@pytest.mark.filterwarnings("ignore:Async generator 'httpx")
async def test_an_answer_that_comes_before_the_body_was_sent_is_delivered(pair: Pair) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(2000):
            await trio.lowlevel.checkpoint()
            yield b"x" * 65_536

    async def refuse(visitor: Visitor) -> None:
        await visitor.head()
        await visitor.answer(b"too large", "Connection: close", status="413 Content Too Large")
        # Who closes with unread data resets the connection, and the answer may be lost: read some, as servers do.
        with trio.move_on_after(0.2):
            await visitor.until_gone()

    transport = pair.make()
    async with scripted(refuse) as server, pair.over(transport) as client:
        try:
            response = await client.post(server.url, content=endless())
        except (pair.httpx.WriteError, pair.httpx.ReadError):
            pass  # the reset overtook the answer, as it may
        else:
            assert (response.status_code, response.text) == (413, "too large")
        assert leases(transport) == 0
        assert total(transport, "idle") == 0


async def test_an_answer_before_the_body_s_end_leaves_no_connection_to_be_reused(pair: Pair) -> None:
    proceed = trio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await proceed.wait()
        yield b"last"

    async def early(visitor: Visitor) -> None:
        while await visitor.head() is not None:
            await visitor.chunk()
            await visitor.answer()
            proceed.set()
            while await visitor.chunk():
                pass

    async with scripted(early) as server, pair.client() as client:
        for _ in range(3):
            assert (await client.post(server.url, content=body())).text == "ok"


# httpx's own generator, when the sending of a body is cancelled.
@pytest.mark.filterwarnings("ignore:Async generator 'httpx")
async def test_a_server_that_stops_reading_does_not_hold_up_others(pair: Pair) -> None:
    async def stop(visitor: Visitor) -> None:
        while (head := await visitor.head()) is not None:
            if head.target == "/stuck":
                await trio.sleep_forever()
            while await visitor.chunk():
                pass
            await visitor.send(OK)

    async with scripted(stop) as server, pair.client() as client, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(lambda: client.post(f"{server.url}/stuck", content=b"x" * 50_000_000))
        for _ in range(5):
            with trio.fail_after(5):
                assert (await client.get(server.url)).text == "ok"
        nursery.cancel_scope.cancel()


async def test_a_header_that_must_not_be_is_refused_before_anything_is_sent(pair: Pair) -> None:
    transport = pair.make()
    async with answering() as origin, pair.over(transport) as client:
        for headers in ({"X-Bad": "a\r\nInjected: yes"}, {"Bad Name": "x"}, {"X-Null": "\0"}):
            with pytest.raises(pair.httpx.LocalProtocolError):
                await client.get(origin.url, headers=headers)
        assert leases(transport) == 0
        assert (await client.get(origin.url)).text == "ok"
        assert len(origin.requests) == 1
        check_books(transport)


async def test_a_body_shorter_than_announced_is_a_local_protocol_error(pair: Pair) -> None:
    transport = pair.make(limits=pair.limits(1))
    async with answering() as origin, pair.over(transport) as client:
        with pytest.raises(pair.httpx.LocalProtocolError):
            await client.post(origin.url, content=b"short", headers={"Content-Length": "10"})
        assert leases(transport) == 0
        assert (await client.get(origin.url)).text == "ok"
