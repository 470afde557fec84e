"""Back-pressure in both directions, and memory that stays flat."""

from collections.abc import AsyncIterator, Callable

import pytest
import trio

from nimblepool_grpc import PooledChannel
from tests.grpc.figures import memory
from tests.grpc.kinds import Kind
from tests.grpc.peer import Server, until
from tests.grpc.stubs import Generated, Stubs

SIZE = 65536
WINDOW = 32 * 2**20
"""Bytes that both sides may hold between them, at most; HTTP/2's windows grow to some of that on a fast network."""
MANY = [10_000, pytest.param(100_000, marks=pytest.mark.servers)]  # the long one where tests take long anyway


async def _settled(figure: Callable[[], int]) -> int:
    """Return what the figure is when it no longer grows."""
    last = -1
    while figure() != last:
        last = figure()
        await trio.sleep(0.15)
    return last


@pytest.mark.parametrize("kind", ["Down", "Both"])
async def test_a_server_waits_for_a_slow_reader(own_server: Server, pb: Stubs, kind: Kind) -> None:
    async with PooledChannel(own_server.target) as channel:
        stub = pb.PeerStub(channel)
        order = pb.Order(replies=2000, size=SIZE)
        before = memory()
        async with stub.Down(order) if kind == "Down" else stub.Both(iter([order])) as call:
            for n in range(3):
                assert (await call.read()).number == n
            held_back = await _settled(lambda: own_server.figures().written)
            assert held_back * SIZE < WINDOW
            assert memory() - before < WINDOW
            numbers = [reply.number async for reply in call]
        assert numbers == list(range(3, 2000))


@pytest.mark.parametrize("kind", ["Up", "Both"])
async def test_a_writer_waits_for_a_slow_server(own_server: Server, pb: Stubs, kind: Kind) -> None:
    written = 0
    async with PooledChannel(own_server.target) as channel, trio.open_nursery() as nursery:
        stub = pb.PeerStub(channel)
        before = memory()
        async with getattr(stub, kind)() as call:

            async def write() -> None:
                nonlocal written
                await call.write(pb.Order(hold=True))
                for _ in range(1000):
                    await call.write(pb.Order(payload=bytes(SIZE)))
                    written += 1
                await call.done_writing()

            nursery.start_soon(write)
            held_back = await _settled(lambda: written)
            assert held_back * SIZE < WINDOW
            assert memory() - before < WINDOW
            own_server.release()
            if kind == "Up":
                assert (await call).count == 1001
            else:
                assert len([reply async for reply in call]) == 1001


@pytest.mark.parametrize("kind", ["Up", "Both"])
async def test_a_request_iterator_is_asked_only_as_fast_as_the_server_reads(
    own_server: Server, pb: Stubs, kind: Kind
) -> None:
    asked = 0

    async def orders() -> AsyncIterator[Generated]:
        nonlocal asked
        yield pb.Order(hold=True)
        for _ in range(1000):
            asked += 1
            yield pb.Order(payload=bytes(SIZE))

    async with PooledChannel(own_server.target) as channel, trio.open_nursery() as nursery:
        stub = pb.PeerStub(channel)
        counts: list[int] = []

        async def call() -> None:
            if kind == "Up":
                counts.append((await stub.Up(orders())).count)
            else:
                counts.append(len([reply async for reply in stub.Both(orders())]))

        nursery.start_soon(call)
        await until(lambda: asked)
        held_back = await _settled(lambda: asked)
        assert held_back * SIZE < WINDOW
        own_server.release()
        await until(lambda: counts == [1001])


@pytest.mark.parametrize("messages", MANY)
async def test_memory_stays_flat_over_a_long_stream_down(stub: Generated, pb: Stubs, messages: int) -> None:
    await _read_many(stub, pb, 2_000)
    before = memory()
    await _read_many(stub, pb, messages)
    assert memory() - before < 4 * 2**20


async def _read_many(stub: Generated, pb: Stubs, count: int) -> None:
    read = 0
    async for _ in stub.Down(pb.Order(replies=count, size=1000)):
        read += 1
    assert read == count


@pytest.mark.parametrize("messages", MANY)
async def test_memory_stays_flat_over_a_long_stream_in_both_directions(
    stub: Generated, pb: Stubs, messages: int
) -> None:
    await _echo_many(stub, pb, 2_000)
    before = memory()
    await _echo_many(stub, pb, messages)
    assert memory() - before < 4 * 2**20


async def _echo_many(stub: Generated, pb: Stubs, count: int) -> None:
    async def orders() -> AsyncIterator[Generated]:
        for n in range(count):
            yield pb.Order(number=n, payload=bytes(1000))

    read = 0
    async for reply in stub.Both(orders()):
        assert reply.number == read
        read += 1
    assert read == count


async def test_a_stream_that_nobody_reads_holds_up_no_other_call(stub: Generated, pb: Stubs, server: Server) -> None:
    async with stub.Down(pb.Order(replies=-1, size=SIZE)) as call:
        await call.read()
        await _settled(lambda: server.figures().written)
        with trio.fail_after(5):
            for n in range(50):
                assert (await stub.Single(pb.Order(number=n))).number == n
