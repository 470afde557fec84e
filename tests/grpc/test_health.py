from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
import trio

from nimblepool.testing import check_balance
from nimblepool_grpc import PooledChannel
from tests.grpc.peer import PATIENCE, Server, until
from tests.grpc.stubs import Stubs

SERVICE = "nimblepool.tests.Peer"


@pytest.fixture
def healthy(generated: Path) -> Iterator[Server]:
    with Server(generated, health={SERVICE: "SERVING"}) as server:
        yield server


async def test_a_healthy_service_is_used_and_watched(healthy: Server, pb: Stubs) -> None:
    async with PooledChannel(healthy.target, health_service=SERVICE) as channel:
        assert (await pb.PeerStub(channel).Single(pb.Order(number=1))).number == 1
        await until(lambda: healthy.figures().watching == 1)
        assert channel.stats.leases == 0
    await until(lambda: healthy.figures().watching == 0)


async def test_a_service_that_stops_serving_costs_its_channels_and_comes_back(healthy: Server, pb: Stubs) -> None:
    async with PooledChannel(healthy.target, health_service=SERVICE, min_size=2) as channel:
        stub = pb.PeerStub(channel)
        await channel.wait_ready()
        await until(lambda: healthy.figures().watching == 2)
        healthy.set_health(SERVICE, "NOT_SERVING")
        await until(lambda: channel.stats.lost == 2)
        with trio.fail_after(PATIENCE), pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Single(pb.Order())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        healthy.set_health(SERVICE, "SERVING")
        assert (await stub.Single(pb.Order(number=1), wait_for_ready=True)).number == 1
        check_balance(channel.pool)


@pytest.mark.parametrize("status", ["NOT_SERVING", "UNKNOWN"])
async def test_a_service_that_does_not_serve_is_not_used(healthy: Server, pb: Stubs, status: str) -> None:
    healthy.set_health(SERVICE, status)
    async with PooledChannel(healthy.target, health_service=SERVICE) as channel:
        with trio.fail_after(PATIENCE), pytest.raises(grpc.aio.AioRpcError) as caught:
            await pb.PeerStub(channel).Single(pb.Order())
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert SERVICE in f"{caught.value} {caught.value.__cause__}"
    assert healthy.figures().begun == {}


async def test_a_service_that_the_server_does_not_know_is_not_used(healthy: Server, pb: Stubs) -> None:
    async with PooledChannel(healthy.target, health_service="some.Other") as channel:
        with trio.fail_after(PATIENCE), pytest.raises(grpc.aio.AioRpcError) as caught:
            await pb.PeerStub(channel).Single(pb.Order())
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_server_without_the_protocol_counts_as_healthy(server: Server, pb: Stubs) -> None:
    async with PooledChannel(server.target, health_service=SERVICE) as channel:
        for _ in range(3):
            assert (await pb.PeerStub(channel).Single(pb.Order(number=1))).number == 1
        assert channel.stats.opened == 1


async def test_a_call_that_runs_when_its_service_stops_serving_is_finished(healthy: Server, pb: Stubs) -> None:
    async with PooledChannel(healthy.target, health_service=SERVICE) as channel:
        async with pb.PeerStub(channel).Both() as call:
            await call.write(pb.Order(number=1))
            assert (await call.read()).number == 1
            healthy.set_health(SERVICE, "NOT_SERVING")
            await trio.sleep(0.05)
            await call.write(pb.Order(number=2))
            assert (await call.read()).number == 2
        await until(lambda: channel.stats.lost == 1)
