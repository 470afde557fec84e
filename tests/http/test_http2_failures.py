"""HTTP/2 servers that break off: GOAWAY, RST_STREAM, REFUSED_STREAM, garbage and silence."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.http.figures import check_books, leases, total
from tests.http.servers.http2 import Stream, http2_serving
from tests.http.servers.listening import pause, reset, serving, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.http.pairs import Pair

PRIOR = {"http1": False, "http2": True}
REFUSED_STREAM = 7
INTERNAL_ERROR = 2


async def test_goaway_lets_the_streams_before_it_end_and_the_connection_takes_no_new_one(pair: Pair) -> None:
    proceed = trio.Event()

    async def answer(stream: Stream) -> None:
        if stream.path == "/old":
            await stream.visitor.goaway(stream.number)
            await proceed.wait()
        await stream.answer(stream.path.encode())

    transport = pair.make(**PRIOR)
    async with http2_serving(answer) as origin, pair.over(transport) as client:
        answers: list[str] = []

        async def ask() -> None:
            answers.append((await client.get(f"{origin.url}/old")).text)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await until(lambda: len(origin.streams) == 1)
            await pause()
            assert (await client.get(f"{origin.url}/new")).text == "/new"
            assert origin.server.accepted == 2
            proceed.set()
        assert answers == ["/old"]
        await until(lambda: origin.server.living == 1)
        check_books(transport)


async def test_an_answer_that_has_arrived_is_read_though_its_server_has_closed_the_connection(pair: Pair) -> None:
    body = bytes(12_000_000)  # more than half of the window: the client opens it again while it reads
    has_left = trio.Event()

    async def answer(stream: Stream) -> None:
        await stream.answer(body)
        await trio.sleep(0.1)  # what a reset overtakes is lost
        connection = stream.visitor.stream
        assert isinstance(connection, trio.SocketStream)
        reset(connection)
        has_left.set()

    transport = pair.make(**PRIOR)
    async with http2_serving(answer) as origin, pair.over(transport) as client:
        async with client.stream("GET", origin.url) as response:
            await has_left.wait()
            await pause()
            assert await response.aread() == body
        assert leases(transport) == 0
        check_books(transport)


async def test_a_request_that_was_not_processed_may_still_meet_a_connection_that_is_closed(pair: Pair) -> None:
    async def answer(stream: Stream) -> None:
        match stream.visitor.number:
            case 1:
                await stream.visitor.goaway(0)
            case 2:
                await stream.visitor.goaway(stream.number)
                await stream.visitor.stream.aclose()
            case _:
                await stream.answer()

    transport = pair.make(**PRIOR)
    async with http2_serving(answer) as origin, pair.over(transport) as client:
        assert (await client.get(origin.url)).text == "ok"
        assert origin.server.accepted == 3
        check_books(transport)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_the_server_did_not_process_before_goaway_is_sent_again_elsewhere(pair: Pair, method: str) -> None:
    async def answer(stream: Stream) -> None:
        await stream.ended.wait()
        if stream.visitor.number == 1:
            if len(stream.visitor.streams) == 4:
                await stream.visitor.goaway(1)
                await stream.visitor.streams[1].answer(b"first")
            return
        await stream.answer(stream.body or b"none")

    transport = pair.make(**PRIOR)
    async with http2_serving(answer) as origin, pair.over(transport) as client:
        answers: list[str] = []

        async def ask(number: int) -> None:
            response = await client.request(method, origin.url, content=b"%d" % number)
            answers.append(response.text)

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                for number in range(4):
                    nursery.start_soon(ask, number)
                    await until(lambda number=number: len(origin.streams) > number)  # type: ignore[misc]
        assert sorted(answers) == ["1", "2", "3", "first"]
        assert leases(transport) == 0
        check_books(transport)


async def test_goaway_before_any_stream_sends_everything_elsewhere(pair: Pair) -> None:
    async def answer(stream: Stream) -> None:
        if stream.visitor.number == 1:
            await stream.visitor.goaway(0)
            await trio.sleep_forever()
        await stream.answer()

    async with http2_serving(answer) as origin, pair.client(**PRIOR) as client:
        with trio.fail_after(5):
            assert (await client.post(origin.url, content=b"x")).text == "ok"
        assert origin.server.accepted == 2


async def test_goaway_and_close_in_one_go_lose_no_request(pair: Pair) -> None:
    # What nginx does after `keepalive_requests`: GOAWAY with the last stream, then it closes.
    async def answer(stream: Stream) -> None:
        last = len(stream.visitor.streams) == 3
        if last:
            await stream.visitor.goaway(stream.number)
        await stream.answer()
        if last:
            await stream.visitor.stream.aclose()

    async with http2_serving(answer) as origin, pair.client(**PRIOR) as client:
        for _ in range(10):
            assert (await client.get(origin.url)).text == "ok"
        assert origin.server.accepted == 4


async def test_goaway_with_an_error_fails_what_was_processed_and_nothing_hangs(pair: Pair) -> None:
    async def answer(stream: Stream) -> None:
        await stream.visitor.goaway(stream.number, INTERNAL_ERROR)
        await stream.visitor.stream.aclose()

    transport = pair.make(**PRIOR)
    async with http2_serving(answer) as origin, pair.over(transport) as client:
        with trio.fail_after(5), pytest.raises(pair.httpx.TransportError):
            await client.post(origin.url, content=b"x")
        assert len(origin.streams) == 1
        assert leases(transport) == 0


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_refused_stream_is_sent_again(pair: Pair, method: str) -> None:
    async def answer(stream: Stream) -> None:
        await stream.ended.wait()
        if len(origin.streams) == 1:
            await stream.reset(REFUSED_STREAM)
        else:
            await stream.answer(stream.body or b"none")

    async with http2_serving(answer) as origin, pair.client(**PRIOR) as client:
        response = await client.request(method, origin.url, content=b"body")
        assert response.text == "body"
        assert len(origin.streams) == 2


async def test_a_refused_stream_whose_body_is_gone_is_an_error(pair: Pair) -> None:
    async def body() -> AsyncIterator[bytes]:
        await trio.lowlevel.checkpoint()
        yield b"once"

    async def answer(stream: Stream) -> None:
        await stream.ended.wait()
        await stream.reset(REFUSED_STREAM)

    transport = pair.make(**PRIOR)
    async with http2_serving(answer) as origin, pair.over(transport) as client:
        with pytest.raises(pair.httpx.RemoteProtocolError):
            await client.post(origin.url, content=body())
        assert len(origin.streams) == 1
        assert leases(transport) == 0


async def test_a_server_that_refuses_everything_is_not_asked_for_ever(pair: Pair) -> None:
    async def answer(stream: Stream) -> None:
        await stream.reset(REFUSED_STREAM)

    async with http2_serving(answer) as origin, pair.client(**PRIOR) as client:
        with trio.fail_after(5), pytest.raises(pair.httpx.RemoteProtocolError):
            await client.get(origin.url)
        assert 1 <= len(origin.streams) <= 5


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_reset_stream_is_an_error_and_the_connection_goes_on(pair: Pair, method: str) -> None:
    async def answer(stream: Stream) -> None:
        await stream.ended.wait()
        if stream.path == "/reset":
            await stream.reset(INTERNAL_ERROR)
        else:
            await stream.answer()

    transport = pair.make(**PRIOR)
    async with http2_serving(answer) as origin, pair.over(transport) as client:
        assert (await client.get(origin.url)).text == "ok"
        with pytest.raises(pair.httpx.RemoteProtocolError):
            await client.request(method, f"{origin.url}/reset")
        assert (await client.get(origin.url)).text == "ok"
        assert (len(origin.streams), origin.server.accepted) == (3, 1)
        assert leases(transport) == 0
        check_books(transport)


async def test_a_connection_that_breaks_fails_all_its_streams_and_the_next_request_has_another(pair: Pair) -> None:
    async def answer(stream: Stream) -> None:
        if stream.visitor.number == 1:
            await stream.begin()
            await stream.send(b"half")
            if len(stream.visitor.streams) == 5:
                await stream.visitor.stream.aclose()
        else:
            await stream.answer()

    failures: list[Any] = []
    transport = pair.make(**PRIOR)
    async with http2_serving(answer) as origin, pair.over(transport) as client:

        async def ask() -> None:
            try:
                await client.get(origin.url)
            except pair.httpx.TransportError as error:
                failures.append(error)

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(ask)
                    await until(lambda number=number: len(origin.streams) > number)  # type: ignore[misc]
        assert len(failures) == 5
        assert (leases(transport), total(transport, "size")) == (0, 0)
        assert (await client.get(origin.url)).text == "ok"
        check_books(transport)


async def test_a_server_that_never_sends_its_settings_is_a_time_out(pair: Pair) -> None:
    async def silent(stream: trio.abc.Stream) -> None:
        with suppress(trio.BrokenResourceError):
            while await stream.receive_some(4096):
                pass

    async with serving(silent) as server, pair.client(timeout=0.1, **PRIOR) as client:
        with trio.fail_after(5), pytest.raises(pair.httpx.TimeoutException):
            await client.get(server.url)


@pytest.mark.parametrize(
    "garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 64, b""], ids=["HTTP/1.1", "binary", "nothing"]
)
async def test_garbage_in_place_of_frames_is_an_error(pair: Pair, garbage: bytes) -> None:
    async def spoil(stream: trio.abc.Stream) -> None:
        await stream.receive_some(4096)
        if garbage:
            await stream.send_all(garbage)

    transport = pair.make(**PRIOR)
    async with serving(spoil) as server, pair.over(transport) as client:
        for _ in range(2):
            with trio.fail_after(5), pytest.raises(pair.httpx.TransportError):
                await client.get(server.url)
            assert (leases(transport), total(transport, "size")) == (0, 0)
        check_books(transport)


async def test_an_answer_before_the_body_was_sent_is_delivered(pair: Pair) -> None:
    proceed = trio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        with trio.move_on_after(1):
            await proceed.wait()
        yield b"last"

    async def answer(stream: Stream) -> None:
        await stream.answer(b"early")
        proceed.set()

    async with http2_serving(answer) as origin, pair.client(**PRIOR) as client:
        with trio.fail_after(5):
            assert (await client.post(origin.url, content=body())).text == "early"
        assert (await client.get(origin.url)).text == "early"


@pytest.mark.parametrize("content", [b"", b"x" * 200_000], ids=["nothing", "a large body"])
async def test_an_answer_followed_by_a_reset_without_an_error_is_delivered(pair: Pair, content: bytes) -> None:
    # What nginx does with a body that it does not want; RFC 9113, 8.1.
    async def answer(stream: Stream) -> None:
        await stream.answer(b"early")
        await stream.stop()

    async with http2_serving(answer) as origin, pair.client(**PRIOR) as client, trio.open_nursery() as nursery:

        async def ask() -> None:
            with trio.fail_after(5):
                assert (await client.post(origin.url, content=content)).text == "early"

        for _ in range(10):
            nursery.start_soon(ask)
