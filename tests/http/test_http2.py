"""HTTP/2: streams are leases that share a connection, as many at a time as the server allows at the moment."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import trio

from tests.http.figures import check_books, leases, total, until_unleased
from tests.http.servers.http1 import answering
from tests.http.servers.http2 import Stream, http2_serving
from tests.http.servers.http2 import Visitor as HTTP2Visitor
from tests.http.servers.listening import pause, serving, until
from tests.http.servers.web import web_serving

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.http.pairs import Pair
    from tests.http.servers.http1 import Request, Visitor
    from tests.http.servers.tls import Certificates

PRIOR = {"http1": False, "http2": True}


class Gate:
    """Answers when it is opened; "/free" at once."""

    def __init__(self) -> None:
        self.event = trio.Event()
        self.now = 0
        self.most = 0

    async def __call__(self, stream: Stream) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        if stream.path != "/free":
            await self.event.wait()
        await stream.answer()
        self.now -= 1


async def test_a_burst_opens_one_connection(pair: Pair, certificates: Certificates) -> None:
    # httpx #514: one connection was opened for each request of a burst.
    tls = certificates.server("h2")
    async with (
        http2_serving(tls=tls) as origin,
        pair.client(verify=certificates.client(), http2=True, limits=pair.limits(100)) as client,
    ):
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(client.get, origin.url)
        assert origin.server.accepted == 1
        assert len(origin.streams) == 50


async def test_a_burst_opens_one_connection_with_prior_knowledge(pair: Pair) -> None:
    transport = pair.make(limits=pair.limits(100), **PRIOR)
    async with http2_serving() as origin, pair.over(transport) as client:
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                for _ in range(60):
                    nursery.start_soon(client.get, origin.url)
        assert origin.server.accepted == 1
        assert total(transport, "opened") == 1
        check_books(transport)


async def test_a_burst_that_turns_out_to_be_http1_gets_the_connections_it_needs(
    pair: Pair, certificates: Certificates
) -> None:
    proceed = trio.Event()

    async def late(visitor: Visitor, request: Request) -> None:
        await proceed.wait()
        await visitor.answer()

    async with (
        answering(late, tls=certificates.server()) as origin,
        pair.client(verify=certificates.client(), http2=True, limits=pair.limits(20)) as client,
    ):
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(client.get, origin.url)
            await until(lambda: len(origin.requests) == 10)
            proceed.set()
        assert origin.server.accepted == 10


async def test_each_stream_is_a_lease(pair: Pair) -> None:
    gate = Gate()
    transport = pair.make(**PRIOR)
    async with http2_serving(gate) as origin, pair.over(transport) as client, trio.open_nursery() as nursery:
        await client.get(f"{origin.url}/free")
        for _ in range(10):
            nursery.start_soon(client.get, origin.url)
        await until(lambda: gate.now == 10)
        assert (leases(transport), total(transport, "leased"), total(transport, "size")) == (10, 1, 1)
        gate.event.set()
        await until_unleased(transport)


async def test_a_second_connection_is_opened_when_all_streams_are_taken(pair: Pair) -> None:
    gate = Gate()
    async with http2_serving(gate, max_streams=3) as origin, pair.client(**PRIOR) as client:
        await client.get(f"{origin.url}/free")
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(client.get, origin.url)
            await until(lambda: gate.now == 8)
            assert origin.server.accepted == 3
            assert [visitor.open_streams for visitor in origin.visitors] == [3, 3, 2]
            gate.event.set()


async def test_no_more_connections_than_the_limit_even_when_all_streams_are_taken(pair: Pair) -> None:
    gate = Gate()
    transport = pair.make(limits=pair.limits(2), **PRIOR)
    async with http2_serving(gate, max_streams=3) as origin, pair.over(transport) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(client.get, origin.url)
            await until(lambda: gate.now == 6)
            for _ in range(5):
                await pause()
            assert (gate.now, origin.server.accepted) == (6, 2)
            gate.event.set()
        assert gate.most <= 6
        assert len(origin.streams) == 10
        check_books(transport)


async def test_a_limit_that_is_raised_serves_who_waits(pair: Pair) -> None:
    gate = Gate()
    async with http2_serving(gate, max_streams=1) as origin, pair.client(limits=pair.limits(1), **PRIOR) as client:
        await client.get(f"{origin.url}/free")
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(client.get, origin.url)
            await until(lambda: gate.now == 1)
            await origin.visitors[0].set_max_streams(4)
            await until(lambda: gate.now == 4)
            gate.event.set()
        assert origin.server.accepted == 1


async def test_a_limit_that_is_lowered_lets_streams_end_and_holds_from_then_on(pair: Pair) -> None:
    gate = Gate()
    async with http2_serving(gate, max_streams=6) as origin, pair.client(limits=pair.limits(1), **PRIOR) as client:
        await client.get(f"{origin.url}/free")
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(client.get, origin.url)
            await until(lambda: gate.now == 6)
            await origin.visitors[0].set_max_streams(2)
            await pause()
            gate.event.set()
        gate.event = trio.Event()
        gate.most = 0
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(client.get, origin.url)
            await until(lambda: gate.now == 2)
            for _ in range(5):
                await pause()
            gate.event.set()
        assert gate.most == 2
        assert origin.server.accepted == 1


async def test_a_limit_of_nothing_means_what_the_client_likes(pair: Pair) -> None:
    gate = Gate()
    async with http2_serving(gate, max_streams=None) as origin, pair.client(**PRIOR) as client:
        await client.get(f"{origin.url}/free")
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(client.get, origin.url)
            await until(lambda: gate.now == 50)
            gate.event.set()
        assert origin.server.accepted == 1


async def test_a_limit_of_zero_opens_another_connection_or_waits_for_the_pool_timeout(pair: Pair) -> None:
    transport = pair.make(limits=pair.limits(1), **PRIOR)
    async with http2_serving() as origin, pair.over(transport, timeout=pair.timeout(pool=0.2)) as client:
        await client.get(origin.url)
        await origin.visitors[0].set_max_streams(0)
        await pause()
        try:
            await client.get(origin.url)
        except pair.httpx.PoolTimeout:
            assert len(origin.streams) == 1
        else:
            assert len(origin.visitors) == 2
        check_books(transport)


async def test_streams_end_in_any_order(pair: Pair) -> None:
    order: list[int] = []
    gates = [trio.Event() for _ in range(8)]

    async def answer(stream: Stream) -> None:
        await gates[int(stream.path[1:])].wait()
        await stream.answer(stream.path[1:].encode())

    async with http2_serving(answer) as origin, pair.client(**PRIOR) as client:

        async def ask(number: int) -> None:
            assert (await client.get(f"{origin.url}/{number}")).text == str(number)
            order.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(ask, number)
            await until(lambda: len(origin.streams) == 8)
            for number in (5, 2, 7, 0, 1, 6, 4, 3):
                gates[number].set()
                await until(lambda number=number: order and order[-1] == number)  # type: ignore[misc]


# The generators of httpx and of httpcore that were not read to their end.
@pytest.mark.filterwarnings("ignore:Async generator 'http")
async def test_half_read_responses_do_not_hold_up_others(pair: Pair) -> None:
    size = 20 * 1024 * 1024

    async def answer(stream: Stream) -> None:
        if stream.path == "/small":
            await stream.answer()
            return
        await stream.begin()
        sent = 0
        while sent < size:
            await stream.send(b"x" * 65_536)
            sent += 65_536
        await stream.end()

    transport = pair.make(limits=pair.limits(2), **PRIOR)
    async with http2_serving(answer) as origin, pair.over(transport, timeout=30.0) as client:
        responses = []
        for _ in range(30):
            response = await client.send(client.build_request("GET", f"{origin.url}/big"), stream=True)
            parts = response.aiter_raw()
            assert await anext(parts)
            responses.append((response, parts))
        with trio.fail_after(10):
            assert (await client.get(f"{origin.url}/small")).text == "ok"
        for response, parts in responses:
            await parts.aclose()
            await response.aclose()
        assert leases(transport) == 0
        with trio.fail_after(10):
            assert (await client.get(f"{origin.url}/small")).text == "ok"
        check_books(transport)


async def test_responses_that_nobody_reads_leave_the_others_their_windows(pair: Pair) -> None:
    async def answer(stream: Stream) -> None:
        await stream.answer(b"ok" if stream.path == "/small" else b"x" * 20_000_000)

    transport = pair.make(limits=pair.limits(1), **PRIOR)
    async with http2_serving(answer) as origin, pair.over(transport) as client, AsyncExitStack() as unread:
        for _ in range(2):
            await unread.enter_async_context(client.stream("GET", f"{origin.url}/big"))
        (visitor,) = origin.visitors
        await until(lambda: not any(visitor.state.local_flow_control_window(number) for number in visitor.streams))
        with trio.fail_after(5):
            assert (await client.get(f"{origin.url}/small")).text == "ok"


async def test_a_large_response_is_read_whole(pair: Pair) -> None:
    async def answer(stream: Stream) -> None:
        await stream.answer(b"x" * 5_000_000)

    async with http2_serving(answer) as origin, pair.client(**PRIOR) as client, trio.open_nursery() as nursery:

        async def fetch() -> None:
            assert len((await client.get(origin.url)).content) == 5_000_000

        for _ in range(4):
            nursery.start_soon(fetch)


async def test_a_connection_window_of_the_largest_size_is_lived_with(pair: Pair) -> None:
    # What nginx greets with. One byte more would be an error.
    async def greet(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x80\0\0\x04\x08\0\0\0\0\0\x7f\xff\0\0")
        visitor = HTTP2Visitor(stream, 1, None)
        await visitor.run(answer, greet=False)

    async def answer(stream: Stream) -> None:
        await stream.ended.wait()
        await stream.answer(stream.body)

    async with serving(greet) as server, pair.client(**PRIOR) as client:
        for body in (b"one", b"two"):
            assert (await client.post(server.url, content=body)).text == body.decode()


async def test_large_requests_share_the_windows(pair: Pair) -> None:
    async with web_serving() as site, pair.client(**PRIOR) as client, trio.open_nursery() as nursery:

        async def send() -> None:
            assert (await client.post(f"{site.url}/size", content=b"x" * 1_000_000)).text == "1000000"

        for _ in range(5):
            nursery.start_soon(send)


async def test_an_abandoned_stream_leaves_the_others_alone_and_its_connection_takes_no_new_one(pair: Pair) -> None:
    proceed = trio.Event()

    async def answer(stream: Stream) -> None:
        await stream.begin()
        await stream.send(b"first ")
        if stream.path == "/kept":
            await proceed.wait()
            await stream.send(b"second")
            await stream.end()
        elif stream.path == "/free":
            await stream.end()

    transport = pair.make(**PRIOR)
    async with http2_serving(answer) as origin, pair.over(transport) as client:
        async with client.stream("GET", f"{origin.url}/kept") as kept:
            async with client.stream("GET", f"{origin.url}/abandoned"):
                pass
            assert leases(transport) == 1
            assert (await client.get(f"{origin.url}/free")).text == "first "
            proceed.set()
            assert (await kept.aread()) == b"first second"
        abandoned = next(stream for stream in origin.streams if stream.path == "/abandoned")
        # Either the stream was reset, or the connection that carries it is done for.
        if abandoned.reset_by_client is None:
            assert origin.server.accepted == 2
            await until(lambda: origin.server.living <= 1)
        check_books(transport)


async def test_permits_do_not_drift_with_streams_that_are_closed_early(pair: Pair) -> None:
    # httpcore #943: each stream that was closed early took a permit with it, until nothing moved.
    async def answer(stream: Stream) -> None:
        await stream.begin()
        await stream.send(b"x" * 100)
        if stream.path == "/whole":
            await stream.end()

    transport = pair.make(limits=pair.limits(1), **PRIOR)
    async with http2_serving(answer, max_streams=4) as origin, pair.over(transport) as client:
        for _ in range(25):
            async with client.stream("GET", f"{origin.url}/half"):
                pass
            assert leases(transport) == 0
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(client.get, f"{origin.url}/whole")
        check_books(transport)


async def test_cancelled_streams_leave_their_connection_s_other_streams_alone(pair: Pair) -> None:
    gate = Gate()
    transport = pair.make(limits=pair.limits(3), **PRIOR)
    async with http2_serving(gate) as origin, pair.over(transport) as client:
        answers: list[str] = []

        async def ask() -> None:
            answers.append((await client.get(origin.url)).text)

        async with trio.open_nursery() as nursery, trio.open_nursery() as doomed:
            for _ in range(5):
                nursery.start_soon(ask)
                doomed.start_soon(client.get, origin.url)
            await until(lambda: gate.now == 10)
            doomed.cancel_scope.cancel()
            gate.event.set()
        assert answers == ["ok"] * 5
        assert leases(transport) == 0
        check_books(transport)


async def test_http2_connections_are_kept_alive_and_expire(pair: Pair, mock_clock: MockClock) -> None:
    async with http2_serving() as origin, pair.client(timeout=None, limits=pair.limits(5, 5, 5.0), **PRIOR) as client:
        await client.get(origin.url)
        mock_clock.jump(4.9)
        await client.get(origin.url)
        assert origin.server.accepted == 1
        mock_clock.jump(5.1)
        await until(lambda: not origin.server.living)


@pytest.mark.parametrize("count", [1, 7])
async def test_no_stream_is_left_open_at_the_server(pair: Pair, count: int) -> None:
    async with http2_serving() as origin, pair.client(**PRIOR) as client:
        for _ in range(count):
            await client.get(origin.url)
        assert [visitor.open_streams for visitor in origin.visitors] == [0]
