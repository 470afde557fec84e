import sys
from collections import Counter
from math import inf

import grpc
import grpc.aio
import pytest
import trio
import trio.testing

from nimblepool import CheckoutTimeout
from nimblepool_grpc import PooledChannel, RpcCheckoutTimeout
from tests.grpc.kinds import KINDS, Kind, ask, begin, every_kind, finish
from tests.grpc.peer import PATIENCE, Server, nothing_runs, until
from tests.grpc.stubs import Generated, Stubs

SHORT = 0.05
"""Seconds of a deadline that passes."""


@every_kind
async def test_a_call_that_takes_too_long_is_cut_off_here_and_in_the_server(
    stub: Generated, pb: Stubs, server: Server, kind: Kind
) -> None:
    with trio.fail_after(PATIENCE), pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(kind, stub, pb.Order(hold=True), timeout=SHORT)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await nothing_runs(server)


@every_kind
async def test_a_deadline_of_trios_is_the_servers_and_comes_out_as_trios(
    stub: Generated, pb: Stubs, server: Server, kind: Kind
) -> None:
    before = sum(server.figures().begun.values())
    for _ in range(10):
        with pytest.raises(trio.TooSlowError), trio.fail_after(SHORT):
            await ask(kind, stub, pb.Order(hold=True))
    assert sum(server.figures().begun.values()) == before + 10
    await nothing_runs(server)


@every_kind
async def test_trio_wins_by_a_hair_but_not_over_a_server_that_gives_up_early(
    stub: Generated, pb: Stubs, server: Server, kind: Kind
) -> None:
    late = pb.Order(sleep=0.2, code=grpc.StatusCode.DEADLINE_EXCEEDED.value[0])
    with pytest.raises(trio.TooSlowError), trio.fail_after(0.25):
        await ask(kind, stub, late)
    with trio.fail_after(PATIENCE), pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(kind, stub, late)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_trio_wins_every_time_that_both_deadlines_pass_together(stub: Generated, pb: Stubs) -> None:
    ends: Counter[str] = Counter()

    async def call(n: int) -> None:
        try:
            with trio.fail_after(SHORT + n * 0.0005):
                await ask(KINDS[n % 4], stub, pb.Order(hold=True))
        except BaseException as error:
            ends[type(error).__name__] += 1

    async with trio.open_nursery() as nursery:
        for n in range(200):
            nursery.start_soon(call, n)
    assert ends == {"TooSlowError": 200}


@pytest.mark.parametrize(
    ("timeout", "outer", "told"),
    [(30, None, (25, 31)), (None, 20, (15, 21)), (30, 20, (15, 21)), (10, 20, (5, 11)), (None, None, (-1, -1))],
)
async def test_the_server_is_told_the_nearest_deadline(
    stub: Generated, pb: Stubs, timeout: float | None, outer: float | None, told: tuple[float, float]
) -> None:
    with trio.CancelScope(deadline=inf if outer is None else trio.current_time() + outer):
        for kind in KINDS:
            reply = await ask(kind, stub, pb.Order(replies=1), timeout=timeout)
            assert told[0] <= reply.remaining <= told[1]


async def test_a_shield_hides_a_deadline_from_the_server_too(stub: Generated, pb: Stubs) -> None:
    with trio.move_on_after(20), trio.CancelScope(shield=True):
        assert (await stub.Single(pb.Order())).remaining == -1


async def test_waiting_for_a_lease_uses_the_timeout_up(server: Server, pb: Stubs) -> None:
    async with PooledChannel(server.target, channels=1, calls_per_channel=1) as channel:
        stub = pb.PeerStub(channel)
        async with stub.Down(pb.Order(replies=-1, pause=0.01)) as holder:
            await holder.read()
            with trio.fail_after(PATIENCE), pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Single(pb.Order(), timeout=SHORT)
            assert isinstance(caught.value, CheckoutTimeout)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            with pytest.raises(trio.TooSlowError), trio.fail_after(SHORT):
                await stub.Single(pb.Order())


async def test_the_server_gets_what_waiting_for_a_lease_has_left_of_the_timeout(server: Server, pb: Stubs) -> None:
    async with PooledChannel(server.target, channels=1, calls_per_channel=1) as channel:
        stub = pb.PeerStub(channel)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "Single", stub, pb.Order(sleep=0.3))
            await until(lambda: channel.stats.leases)
            assert (await stub.Single(pb.Order(), timeout=2)).remaining < 1.75


async def test_a_timeout_that_is_past_fails_at_once(stub: Generated, pb: Stubs, server: Server) -> None:
    for timeout in (0, -1, 0.0) * 20:
        with trio.fail_after(PATIENCE), pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Single(pb.Order(hold=True), timeout=timeout)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await nothing_runs(server)


@every_kind
@pytest.mark.parametrize("timeout", [0, -1])
async def test_nothing_is_sent_after_the_deadline(
    stub: Generated, pb: Stubs, server: Server, kind: Kind, timeout: float
) -> None:
    await stub.Single(pb.Order())
    before = sum(server.figures().begun.values())
    for _ in range(20):
        with trio.fail_after(PATIENCE), pytest.raises(RpcCheckoutTimeout, match="before anything was sent") as caught:
            await ask(kind, stub, pb.Order(replies=1), timeout=timeout)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert sum(server.figures().begun.values()) == before


@every_kind
@pytest.mark.parametrize("far", [1e10, float(sys.maxsize)])
async def test_a_deadline_that_nobody_will_see_is_none(stub: Generated, pb: Stubs, kind: Kind, far: float) -> None:
    with trio.fail_after(far):
        assert (await ask(kind, stub, pb.Order(replies=1))).remaining == -1
    assert (await ask(kind, stub, pb.Order(replies=1), timeout=far)).remaining == -1


def test_a_mocked_clock_is_none_of_the_servers_business(server: Server, pb: Stubs) -> None:
    async def main() -> None:
        async with PooledChannel(server.target) as channel:
            stub = pb.PeerStub(channel)
            for kind in KINDS:
                with trio.fail_after(SHORT):
                    assert (await ask(kind, stub, pb.Order(replies=1, sleep=2 * SHORT))).remaining == -1
            assert 25 < (await stub.Single(pb.Order(), timeout=30)).remaining <= 30 * 1.05

    trio.run(main, clock=trio.testing.MockClock())


async def test_a_stream_ends_at_its_deadline_however_busy_it_is(stub: Generated, pb: Stubs, server: Server) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in stub.Down(pb.Order(replies=-1, pause=0.001), timeout=2 * SHORT):
            pass
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await nothing_runs(server)


@every_kind
async def test_a_call_knows_what_time_it_has_left(stub: Generated, pb: Stubs, kind: Kind) -> None:
    call = begin(kind, stub, pb.Order(replies=1), timeout=30)
    await finish(kind, call)
    assert 25 < call.time_remaining() <= 30
    call = begin(kind, stub, pb.Order(replies=1))
    await finish(kind, call)
    assert call.time_remaining() is None


async def test_a_deadline_between_two_messages_ends_a_stream_that_began_before_it(
    stub: Generated, pb: Stubs, server: Server
) -> None:
    async with stub.Both() as call:
        await call.write(pb.Order(number=1))
        assert (await call.read()).number == 1
        with pytest.raises(trio.TooSlowError), trio.fail_after(SHORT):
            await call.read()
    await nothing_runs(server)
