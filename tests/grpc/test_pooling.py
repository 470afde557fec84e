from collections import Counter
from pathlib import Path

import grpc
import grpc.aio
import pytest
import trio
import trio.testing

from nimblepool import LeaseExpired, PoolOverloaded
from nimblepool.testing import check_balance
from nimblepool_grpc import PooledChannel, RpcCancelled, RpcLeaseExpired, RpcLeaseRevoked
from tests.grpc.figures import connections
from tests.grpc.kinds import KINDS, Kind, ask, every_kind
from tests.grpc.peer import PATIENCE, Server, nothing_runs, until
from tests.grpc.stubs import Generated, Stubs

LIMIT = 10
"""Streams that a server allows on a connection. grpcio's counts those that have just ended, too: half of it is safe."""


async def test_a_server_with_a_stream_limit_fails_no_call_where_channels_carry_half_of_it(
    generated: Path, pb: Stubs
) -> None:
    failed: Counter[object] = Counter()
    with Server(generated, options=[("grpc.max_concurrent_streams", LIMIT)]) as server:

        async def work(stub: Generated, n: int) -> None:
            for k in range(30):
                try:
                    await ask(KINDS[(n + k) % 4], stub, pb.Order(number=n, replies=1, sleep=0.002 * (k % 3)))
                except grpc.aio.AioRpcError as error:
                    failed[error.code()] += 1

        async with PooledChannel(
            server.target, channels=3, calls_per_channel=LIMIT // 2, checkout_timeout=PATIENCE
        ) as channel:
            async with trio.open_nursery() as nursery:
                for n in range(100):
                    nursery.start_soon(work, pb.PeerStub(channel), n)
            assert failed == {}
            assert channel.stats.opened == 3
            assert sum(server.figures().begun.values()) == 3000
            check_balance(channel.pool)


async def test_long_calls_spread_over_the_channels_and_none_fails(server: Server, pb: Stubs) -> None:
    used: Counter[str] = Counter()

    async def work(stub: Generated) -> None:
        used[(await stub.Single(pb.Order(sleep=1.0))).peer] += 1

    async with PooledChannel(server.target, channels=8, checkout_timeout=PATIENCE) as channel:
        stub = pb.PeerStub(channel)
        async with trio.open_nursery() as nursery:
            for _ in range(400):
                nursery.start_soon(work, stub)
        assert len(used) == 8
        assert set(used.values()) == {50}


async def test_each_channel_is_its_own_connection(server: Server, pb: Stubs) -> None:
    before = connections(server.port)
    async with PooledChannel(server.target, channels=3, min_size=3) as channel:
        await channel.wait_ready()
        own = connections(server.port) - before
        assert len(own) == 3
        peers: set[str] = set()

        async def note(stub: Generated) -> None:
            peers.add((await stub.Single(pb.Order(sleep=0.1))).peer)

        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(note, pb.PeerStub(channel))
        assert {int(peer.rsplit(":", 1)[1]) for peer in peers} == own
    await until(lambda: connections(server.port) == before)


async def test_a_burst_shares_the_first_channel_instead_of_opening_one_each(server: Server, pb: Stubs) -> None:
    async with PooledChannel(server.target, channels=4) as channel:
        stub = pb.PeerStub(channel)
        async with trio.open_nursery() as nursery:
            for n in range(50):
                nursery.start_soon(ask, "Single", stub, pb.Order(number=n))
        assert channel.stats.opened == 1
        assert channel.stats.started == 50


async def test_a_lease_pins_its_calls_to_one_connection(server: Server, pb: Stubs) -> None:
    async with PooledChannel(server.target, channels=3, min_size=3, order="fifo") as channel:
        await channel.wait_ready()
        async with channel.lease() as one:
            stub = pb.PeerStub(one)
            peers: set[str] = set()

            async def note(kind: Kind, n: int) -> None:
                peers.add((await ask(kind, stub, pb.Order(replies=1, sleep=0.005 * (n % 3)))).peer)

            async with trio.open_nursery() as nursery:
                for n in range(40):
                    nursery.start_soon(note, KINDS[n % 4], n)
            assert len(peers) == 1
            assert channel.stats.leases == 1
        assert channel.stats.leases == 0


@every_kind
async def test_a_lease_that_has_ended_refuses(channel: PooledChannel, pb: Stubs, kind: Kind) -> None:
    async with channel.lease() as one:
        stub = pb.PeerStub(one)
        await ask(kind, stub, pb.Order(replies=1))
    with pytest.raises(LeaseExpired) as caught:
        await ask(kind, stub, pb.Order(replies=1))
    assert isinstance(caught.value, grpc.aio.AioRpcError)


@every_kind
async def test_a_call_that_is_still_running_when_its_lease_ends_is_cancelled(
    channel: PooledChannel, pb: Stubs, server: Server, kind: Kind
) -> None:
    async def call() -> None:
        with pytest.raises(RpcCancelled, match="lease of the channel has ended"):
            await ask(kind, stub, pb.Order(hold=True))

    async with trio.open_nursery() as nursery:
        async with channel.lease() as one:
            stub = pb.PeerStub(one)
            nursery.start_soon(call)
            await until(lambda: server.figures().running == 1)
        assert channel.stats.leases == 0
    await nothing_runs(server)


@every_kind
@pytest.mark.parametrize("checkpoints", range(5))
async def test_a_call_that_begins_as_its_lease_ends_is_cancelled_or_refused(
    channel: PooledChannel, pb: Stubs, kind: Kind, checkpoints: int
) -> None:
    async def call() -> None:
        with pytest.raises((RpcCancelled, LeaseExpired)):
            await ask(kind, stub, pb.Order(replies=1))

    async with channel.lease() as one:
        await ask(kind, pb.PeerStub(one), pb.Order(replies=1))
    async with trio.open_nursery() as nursery, channel.lease() as one:
        stub = pb.PeerStub(one)
        nursery.start_soon(call)
        for _ in range(checkpoints):
            await trio.lowlevel.checkpoint()


async def test_a_leased_channel_that_is_asked_about_its_state_too_late_answers_in_grpcs_words(
    channel: PooledChannel,
) -> None:
    async with channel.lease() as one:
        assert one.get_state() is grpc.ChannelConnectivity.READY
        await one.channel_ready()
    with pytest.raises(RpcLeaseExpired):
        one.get_state()
    with pytest.raises(RpcLeaseExpired):
        await one.wait_for_state_change(grpc.ChannelConnectivity.READY)
    with pytest.raises(RpcLeaseExpired):
        await one.channel_ready()


@pytest.mark.parametrize("kind", [None, "Single", "Down", "Up", "Both"])
async def test_a_lease_that_the_closing_channel_revokes_ends_with_an_error_of_grpcs(
    server: Server, pb: Stubs, kind: Kind | None
) -> None:
    leased = trio.Event()

    async def hold(channel: PooledChannel) -> None:
        with pytest.raises(RpcLeaseRevoked):
            async with channel.lease() as one:
                leased.set()
                if kind is not None:
                    await ask(kind, pb.PeerStub(one), pb.Order(hold=True))
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery, PooledChannel(server.target, close_grace=0.05) as channel:
        nursery.start_soon(hold, channel)
        await leased.wait()
    await nothing_runs(server)


async def test_max_age_spreads_load_over_new_connections(server: Server, pb: Stubs) -> None:
    peers: set[str] = set()
    async with PooledChannel(server.target, channels=2, max_age=0.1) as channel:
        stub = pb.PeerStub(channel)
        with trio.fail_after(PATIENCE):
            while len(peers) < 6:
                peers.add((await stub.Single(pb.Order())).peer)
        assert channel.stats.lost == 0
        check_balance(channel.pool)


async def test_a_channel_that_is_too_old_lets_its_streams_finish(server: Server, pb: Stubs) -> None:
    async with PooledChannel(server.target, channels=2, max_age=0.1) as channel:
        call = pb.PeerStub(channel).Down(pb.Order(replies=40, pause=0.01))
        assert [reply.number async for reply in call] == list(range(40))


async def test_refresh_replaces_every_channel(server: Server, pb: Stubs) -> None:
    async with PooledChannel(server.target, channels=2) as channel:
        stub = pb.PeerStub(channel)
        first = (await stub.Single(pb.Order())).peer
        channel.refresh()
        assert (await stub.Single(pb.Order())).peer != first
        assert channel.stats.lost == 0


async def test_a_full_queue_is_resource_exhausted(server: Server, pb: Stubs) -> None:
    async with PooledChannel(server.target, channels=1, calls_per_channel=1, max_waiting=0) as channel:
        stub = pb.PeerStub(channel)
        async with stub.Down(pb.Order(replies=-1, pause=0.01)) as holder:
            await holder.read()
            with pytest.raises(PoolOverloaded) as caught:
                await stub.Single(pb.Order())
        assert isinstance(caught.value, grpc.aio.AioRpcError)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_stream_holds_its_lease_until_it_ends(channel: PooledChannel, stub: Generated, pb: Stubs) -> None:
    call = stub.Both()
    assert channel.stats.leases == 0
    await call.write(pb.Order())
    assert channel.stats.leases == 1
    await call.read()
    assert channel.stats.leases == 1
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert channel.stats.leases == 0


async def test_a_stream_gives_its_lease_back_when_the_server_has_ended_it_though_nobody_looks(
    channel: PooledChannel, stub: Generated, pb: Stubs
) -> None:
    call = stub.Both()
    await call.write(pb.Order(answer=True))
    await call.read()
    await until(lambda: not channel.stats.leases)
    assert call.done()


async def test_options_reach_the_core(server: Server, pb: Stubs) -> None:
    options = [("grpc.primary_user_agent", "tests/1.0")]
    async with PooledChannel(server.target, options=options) as channel:
        reply = await pb.PeerStub(channel).Single(pb.Order())
    (agent,) = [pair for pair in reply.metadata if pair.startswith("user-agent=")]
    assert agent.startswith("user-agent=tests/1.0 ")


async def test_a_service_config_repeats_calls(own_server: Server, pb: Stubs) -> None:
    policy = (
        '{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 3, "initialBackoff": "0.01s",'
        ' "maxBackoff": "0.01s", "backoffMultiplier": 1, "retryableStatusCodes": ["ABORTED"]}}]}'
    )
    async with PooledChannel(own_server.target, options=[("grpc.service_config", policy)]) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await pb.PeerStub(channel).Single(pb.Order(code=grpc.StatusCode.ABORTED.value[0]))
    assert sum(own_server.figures().begun.values()) == 3


async def test_round_robin_spreads_one_channel_over_every_address(generated: Path, pb: Stubs) -> None:
    with Server(generated) as one, Server(generated) as other:
        target = f"ipv4:{one.target},{other.target}"
        policy = '{"loadBalancingConfig": [{"round_robin": {}}]}'
        async with PooledChannel(target, channels=1, options=[("grpc.service_config", policy)]) as channel:
            stub = pb.PeerStub(channel)
            await stub.Single(pb.Order())
            await until(lambda: len(connections(one.port)) == len(connections(other.port)) == 1)
            for _ in range(20):
                await stub.Single(pb.Order())
        assert min(sum(server.figures().begun.values()) for server in (one, other)) >= 5
