"""etcd from Debian as a peer: Put, Range, Watch, LeaseKeepAlive, and its health."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
import trio

from nimblepool.testing import check_balance, sweep
from nimblepool_grpc import PooledChannel
from tests.grpc.stubs import Generated, Stubs, generate
from tests.servers.etcd import Etcd
from tests.servers.process import PATIENCE, until

PROTO = Path(__file__).parent / "etcd.proto"


@pytest.fixture(scope="module")
def pb(tmp_path_factory: pytest.TempPathFactory) -> Stubs:
    generate(tmp_path_factory.mktemp("etcd"), PROTO)
    return Stubs("etcd")


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    with Etcd() as server:
        yield server


@pytest.fixture
def own_etcd() -> Iterator[Etcd]:
    with Etcd() as server:
        yield server


async def test_what_is_put_is_found(etcd: Etcd, pb: Stubs) -> None:
    async with PooledChannel(etcd.target) as channel:
        kv = pb.KVStub(channel)

        async def put(n: int) -> None:
            await kv.Put(pb.PutRequest(key=b"many/%03d" % n, value=b"%d" % n))

        async with trio.open_nursery() as nursery:
            for n in range(500):
                nursery.start_soon(put, n)
        found = await kv.Range(pb.RangeRequest(key=b"many/", range_end=b"many0"))
        assert [(pair.key, pair.value) for pair in found.kvs] == [(b"many/%03d" % n, b"%d" % n) for n in range(500)]
        check_balance(channel.pool)


async def test_a_watch_tells_of_every_change_in_order(etcd: Etcd, pb: Stubs) -> None:
    async with PooledChannel(etcd.target) as channel:
        kv = pb.KVStub(channel)
        create = pb.WatchCreateRequest(key=b"watched")
        async with pb.WatchStub(channel).Watch() as watch, trio.open_nursery() as nursery:
            await watch.write(pb.WatchRequest(create_request=create))
            assert (await watch.read()).created

            async def put_all() -> None:
                for n in range(100):
                    await kv.Put(pb.PutRequest(key=b"watched", value=b"%d" % n))

            nursery.start_soon(put_all)
            seen: list[int] = []
            while len(seen) < 100:
                seen += [int(event.kv.value) for event in (await watch.read()).events]
            assert seen == list(range(100))
            assert channel.stats.leases >= 1
        await until(lambda: not channel.stats.leases)


async def test_a_lease_lives_while_it_is_kept_alive(etcd: Etcd, pb: Stubs) -> None:
    async with PooledChannel(etcd.target) as channel:
        kv, leases = pb.KVStub(channel), pb.LeaseStub(channel)

        async def is_there() -> bool:
            return bool((await kv.Range(pb.RangeRequest(key=b"leased"))).count == 1)

        lease = (await leases.LeaseGrant(pb.LeaseGrantRequest(TTL=1))).ID
        await kv.Put(pb.PutRequest(key=b"leased", value=b"", lease=lease))
        async with leases.LeaseKeepAlive() as keeping:
            for _ in range(8):
                await keeping.write(pb.LeaseKeepAliveRequest(ID=lease))
                answer = await keeping.read()
                assert (answer.ID, answer.TTL > 0) == (lease, True)
                await trio.sleep(0.3)
            assert await is_there()
        await leases.LeaseRevoke(pb.LeaseRevokeRequest(ID=lease))
        assert not await is_there()
        with pytest.raises(grpc.aio.AioRpcError, match="lease not found") as caught:
            await leases.LeaseRevoke(pb.LeaseRevokeRequest(ID=lease))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_its_health_is_watched(own_etcd: Etcd, pb: Stubs) -> None:
    async with PooledChannel(own_etcd.target, health_service="") as channel:
        kv = pb.KVStub(channel)
        for n in range(20):
            await kv.Put(pb.PutRequest(key=b"key", value=b"%d" % n))
        assert channel.stats.opened == 1
        own_etcd.kill()
        await until(lambda: not channel.stats.size)
        await trio.to_thread.run_sync(own_etcd.start)
        found = await kv.Range(pb.RangeRequest(key=b"key"), wait_for_ready=True, timeout=PATIENCE)
        assert found.kvs[0].value == b"19"


async def test_a_service_that_it_does_not_know_is_not_used(etcd: Etcd, pb: Stubs) -> None:
    async with PooledChannel(etcd.target, health_service="some.Other") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await pb.KVStub(channel).Range(pb.RangeRequest(key=b"key"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_cancelled_at_every_checkpoint_its_calls_leave_nothing_behind(etcd: Etcd, pb: Stubs) -> None:
    async with PooledChannel(etcd.target) as channel:
        kv = pb.KVStub(channel)

        async def use() -> None:
            async with pb.WatchStub(channel).Watch() as watch:
                await watch.write(pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"swept")))
                assert (await watch.read()).created
                await kv.Put(pb.PutRequest(key=b"swept", value=b"1"))
                assert (await watch.read()).events[0].kv.value == b"1"

        async def check() -> None:
            assert not channel.stats.leases
            check_balance(channel.pool)

        await use()
        assert await sweep(use, check) > 4
        assert channel.stats.opened == 1


async def test_a_server_that_is_killed_keeps_what_it_acknowledged_and_is_found_again(own_etcd: Etcd, pb: Stubs) -> None:
    acknowledged: list[int] = []
    done = False

    async def put_all(kv: Generated, first: int) -> None:
        number = first
        while not done:
            try:
                await kv.Put(pb.PutRequest(key=b"number/%06d" % number, value=b""))
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - any other one is raised by this
                await trio.sleep(0.01)
            else:
                acknowledged.append(number)
            number += 1

    async with PooledChannel(own_etcd.target) as channel:
        kv = pb.KVStub(channel)
        async with trio.open_nursery() as nursery:
            for n in range(5):
                nursery.start_soon(put_all, kv, n * 100_000)
            for _ in range(2):
                wanted = len(acknowledged) + 100
                await until(lambda: len(acknowledged) >= wanted)  # noqa: B023 - the condition ends with the round
                own_etcd.kill()
                await trio.to_thread.run_sync(own_etcd.start)
            wanted = len(acknowledged) + 100
            await until(lambda: len(acknowledged) >= wanted)
            done = True
        found = await kv.Range(pb.RangeRequest(key=b"number/", range_end=b"number0"))
        assert set(acknowledged) <= {int(pair.key.split(b"/")[1]) for pair in found.kvs}
        check_balance(channel.pool)
