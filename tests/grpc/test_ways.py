"""What holds for a call, whatever its kind, on a channel, behind interceptors, and on a lease."""

import gc
from typing import Any

import grpc
import grpc.aio
import pytest
import trio
import trio.testing

from nimblepool.testing import check_balance, sweep
from nimblepool_grpc import PooledChannel, RpcCancelled
from tests.grpc.kinds import STREAMS, Kind, begin, every_kind, finish
from tests.grpc.peer import PATIENCE, Server, nothing_runs, until
from tests.grpc.stubs import Generated, Stubs
from tests.grpc.uses import Use, every_use, single
from tests.grpc.ways import How, every_way, way

WRITTEN: list[Kind] = ["Up", "Both"]
PAYLOAD = bytes(300_000)


@every_way
@every_use
async def test_cancelled_at_every_checkpoint_a_call_leaves_nothing_behind(
    server: Server, pb: Stubs, how: How, use: Use
) -> None:
    async with way(how, server, pb) as (channel, stub, leases):

        async def check() -> None:
            await nothing_runs(server)
            assert channel.stats.leases == leases
            if not leases:
                check_balance(channel.pool)
            await single(stub, pb)
            assert channel.stats.lost == 0

        await check()
        with trio.fail_after(PATIENCE):
            assert await sweep(lambda: use(stub, pb), check) >= 2
        assert channel.stats.opened == 1


@every_way
@pytest.mark.parametrize("kind", STREAMS)
async def test_a_call_that_is_dropped_in_mid_flight_gives_its_lease_back(
    server: Server, pb: Stubs, how: How, kind: Kind
) -> None:
    async with way(how, server, pb) as (channel, stub, leases):
        call = begin(kind, stub, pb.Order(hold=True), metadata=[("initial-a", "1")])
        await call.initial_metadata()
        await until(lambda: server.figures().running == 1)
        del call
        gc.collect()
        await until(lambda: channel.stats.leases == leases)
        await nothing_runs(server)


@every_way
@pytest.mark.parametrize("kind", WRITTEN)
async def test_a_call_written_by_hand_that_is_dropped_gives_its_lease_back(
    server: Server, pb: Stubs, how: How, kind: Kind
) -> None:
    async with way(how, server, pb) as (channel, stub, leases):
        call = getattr(stub, kind)()
        await call.write(pb.Order(number=1))
        await until(lambda: server.figures().running == 1)
        del call
        gc.collect()
        await until(lambda: channel.stats.leases == leases)
        await nothing_runs(server)


@every_way
@pytest.mark.parametrize("kind", WRITTEN)
async def test_a_cancelled_write_ends_its_call(server: Server, pb: Stubs, how: How, kind: Kind) -> None:
    async with way(how, server, pb) as (_, stub, __):
        call = getattr(stub, kind)()
        await call.write(pb.Order(hold=True))
        with trio.move_on_after(0.1) as scope:
            while True:
                await call.write(pb.Order(payload=PAYLOAD))
        assert scope.cancelled_caught
        assert call.cancelled()
        with pytest.raises(RpcCancelled):
            await call.write(pb.Order())


@every_way
@pytest.mark.parametrize("kind", WRITTEN)
async def test_a_second_writer_is_refused(server: Server, pb: Stubs, how: How, kind: Kind) -> None:
    async def fill() -> None:
        while True:
            await call.write(pb.Order(payload=PAYLOAD))

    async with way(how, server, pb) as (_, stub, __), trio.open_nursery() as nursery:
        call = getattr(stub, kind)()
        await call.write(pb.Order(hold=True))
        nursery.start_soon(fill)
        await trio.testing.wait_all_tasks_blocked(0.05)
        with trio.fail_after(PATIENCE), pytest.raises(trio.BusyResourceError):
            await call.write(pb.Order())
        nursery.cancel_scope.cancel()


def fail(_: object) -> None:
    raise ValueError("the callback's")


def _logged(caplog: pytest.LogCaptureFixture) -> list[BaseException | None]:
    return [record.exc_info[1] for record in caplog.records if record.exc_info]


@every_way
@every_kind
async def test_what_a_done_callback_raises_is_logged_and_the_next_one_is_told(
    server: Server, pb: Stubs, how: How, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Any] = []
    async with way(how, server, pb) as (_, stub, __):
        call = begin(kind, stub, pb.Order(replies=1))
        for callback in (fail, told.append):
            call.add_done_callback(callback)
        assert (await finish(kind, call)).count == 1
        for callback in (fail, told.append):
            call.add_done_callback(callback)
    assert told == [call, call]
    assert [repr(error) for error in _logged(caplog)] == 2 * ['ValueError("the callback\'s")']


@every_way
@every_kind
async def test_what_a_done_callback_raises_stands_in_no_ones_way(
    server: Server, pb: Stubs, how: How, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    async with way(how, server, pb) as (_, stub, __):
        begun, running = (begin(kind, stub, pb.Order(hold=True)) for _ in range(2))
        for call in (begun, running):
            call.add_done_callback(fail)
        assert begun.cancel()
        with trio.move_on_after(0.1) as scope:
            await finish(kind, running)
        assert scope.cancelled_caught
        for call in (begun, running):
            assert call.done()
            assert await call.code() is grpc.StatusCode.CANCELLED
    assert len(_logged(caplog)) == 2


class Answering(grpc.aio.UnaryUnaryClientInterceptor, grpc.aio.UnaryStreamClientInterceptor):
    """Asks nobody."""

    async def intercept_unary_unary(
        self, continuation: Generated, client_call_details: Generated, request: Generated
    ) -> Generated:
        return request

    async def intercept_unary_stream(
        self, continuation: Generated, client_call_details: Generated, request: Generated
    ) -> Generated:
        async def responses() -> Generated:
            yield request

        return responses()


@pytest.mark.parametrize("kind", ["Single", "Down"])
async def test_a_done_callback_that_raises_leaves_the_answer_of_an_interceptor(
    server: Server, pb: Stubs, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    async with PooledChannel(server.target, interceptors=[Answering()]) as channel:
        call = begin(kind, pb.PeerStub(channel), pb.Order(number=7))
        call.add_done_callback(fail)
        assert (await finish(kind, call)).number == 7
        assert await call.code() is grpc.StatusCode.OK
    assert len(_logged(caplog)) == 1
