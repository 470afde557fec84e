"""Node's `@grpc/grpc-js` as a peer, straight and behind Debian's nginx, which says GOAWAY after a few requests."""

import os
from collections import Counter
from collections.abc import Iterator

import grpc
import grpc.aio
import pytest
import trio

from nimblepool.testing import check_balance, sweep
from nimblepool_grpc import PooledChannel
from tests.grpc.kinds import KINDS, Kind, ask, begin, each, every_kind, finish
from tests.grpc.stubs import HERE, Generated, Stubs, generate
from tests.servers.grpc_nginx import REQUESTS, GrpcNginx
from tests.servers.grpc_node import NodeServer
from tests.servers.process import PATIENCE, until

LIMIT = 10


@pytest.fixture(scope="module")
def pb(tmp_path_factory: pytest.TempPathFactory) -> Stubs:
    generate(tmp_path_factory.mktemp("peer"), HERE / "peer.proto")
    return Stubs("peer")


@pytest.fixture(autouse=True)
def no_proxy_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of whoever runs the tests has no say."""
    for name in os.environ:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def grpc_node() -> Iterator[NodeServer]:
    with NodeServer() as server:
        yield server


@pytest.fixture
def own_grpc_node() -> Iterator[NodeServer]:
    with NodeServer() as server:
        yield server


@pytest.fixture(scope="module")
def grpc_nginx(grpc_node: NodeServer) -> Iterator[GrpcNginx]:
    with GrpcNginx(int(grpc_node.target.rsplit(":", 1)[1])) as nginx:
        yield nginx


@pytest.fixture(params=["straight", "through nginx"])
def target(request: pytest.FixtureRequest, grpc_node: NodeServer, grpc_nginx: GrpcNginx) -> str:
    return grpc_node.target if request.param == "straight" else grpc_nginx.target


@every_kind
async def test_calls_of_every_kind_work(target: str, pb: Stubs, kind: Kind) -> None:
    metadata = [("initial-key", "early"), ("trailing-key", "late")]
    async with PooledChannel(target) as channel:
        stub = pb.PeerStub(channel)
        for n in range(30):
            call = begin(kind, stub, pb.Order(number=n, replies=int(kind == "Down")), metadata=metadata)
            assert (await finish(kind, call)).number == (0 if kind == "Down" else n)
            assert (await call.initial_metadata())["initial-key"] == "early"
            assert (await call.trailing_metadata())["trailing-key"] == "late"
        await until(lambda: not channel.stats.leases)
        check_balance(channel.pool)


@every_kind
async def test_failures_come_with_code_details_and_metadata(target: str, pb: Stubs, kind: Kind) -> None:
    order = pb.Order(code=grpc.StatusCode.NOT_FOUND.value[0], details="nobody of that name")
    async with PooledChannel(target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(kind, pb.PeerStub(channel), order, metadata=[("trailing-key", "late")])
    error = caught.value
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "nobody of that name")
    assert error.trailing_metadata()["trailing-key"] == "late"


async def test_long_streams_come_whole_in_both_directions(target: str, pb: Stubs) -> None:
    async with PooledChannel(target) as channel:
        stub = pb.PeerStub(channel)
        replies = [reply async for reply in stub.Down(pb.Order(replies=500, size=10_000))]
        assert [reply.number for reply in replies] == list(range(500))
        orders = [pb.Order(number=n, payload=bytes(10_000)) for n in range(500)]
        assert (await stub.Up(orders)).number == sum(range(500))
        assert [reply.number async for reply in stub.Both(each(*orders))] == list(range(500))


@every_kind
async def test_a_cancelled_call_ends_in_the_server(target: str, grpc_node: NodeServer, pb: Stubs, kind: Kind) -> None:
    async with PooledChannel(target) as channel, trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(ask, kind, pb.PeerStub(channel), pb.Order(hold=True))
        await until(lambda: grpc_node.running == 10)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await until(lambda: grpc_node.running == 0)


async def test_cancelled_at_every_checkpoint_calls_leave_nothing_behind(
    target: str, grpc_node: NodeServer, pb: Stubs
) -> None:
    async with PooledChannel(target) as channel:
        stub = pb.PeerStub(channel)

        async def use() -> None:
            assert (await stub.Single(pb.Order(number=1))).number == 1
            assert [reply.number async for reply in stub.Down(pb.Order(replies=2))] == [0, 1]
            async with stub.Both() as call:
                await call.write(pb.Order(number=1))
                assert (await call.read()).number == 1

        async def check() -> None:
            await until(lambda: grpc_node.running == 0)
            assert not channel.stats.leases
            check_balance(channel.pool)

        assert await sweep(use, check) > 6


async def test_a_server_with_a_stream_limit_fails_no_call(pb: Stubs) -> None:
    with NodeServer(max_concurrent_streams=LIMIT) as server:
        async with PooledChannel(server.target, channels=3, calls_per_channel=LIMIT // 2) as channel:
            assert await _ask_many(channel, pb, 100, 20) == {"ok": 2000}


async def test_goaway_after_every_few_requests_loses_no_call(grpc_nginx: GrpcNginx, pb: Stubs) -> None:
    async with PooledChannel(grpc_nginx.target, checkout_timeout=PATIENCE) as channel:
        assert await _ask_many(channel, pb, 20, 50) == {"ok": 1000}
        assert channel.stats.opened >= 1000 // REQUESTS // 10
        check_balance(channel.pool)


async def _ask_many(channel: PooledChannel, pb: Stubs, tasks: int, rounds: int) -> Counter[object]:
    """Let tasks call in turn, and return what came of it."""
    ends: Counter[object] = Counter()

    async def work(stub: Generated, n: int) -> None:
        for k in range(rounds):
            try:
                await ask(KINDS[(n + k) % 4], stub, pb.Order(number=n, replies=1))
                ends["ok"] += 1
            except grpc.aio.AioRpcError as error:
                ends[error.code(), error.details()] += 1

    async with trio.open_nursery() as nursery:
        for n in range(tasks):
            nursery.start_soon(work, pb.PeerStub(channel), n)
    return ends


async def test_a_reload_of_nginx_in_mid_traffic_costs_only_what_nginx_had_begun_and_cut_off(
    grpc_nginx: GrpcNginx, pb: Stubs
) -> None:
    ends: Counter[object] = Counter()
    async with PooledChannel(grpc_nginx.target, checkout_timeout=PATIENCE) as channel:
        async with trio.open_nursery() as nursery:

            async def work() -> None:
                ends.update(await _ask_many(channel, pb, 10, 60))

            nursery.start_soon(work)
            for _ in range(3):
                await trio.sleep(0.1)
                await trio.to_thread.run_sync(grpc_nginx.reload)
        # Now and then nginx closes the connection right behind its GOAWAY; calls that it had accepted are not safe to
        # repeat. grpc.aio loses them, too.
        lost = {end: count for end, count in ends.items() if end != "ok"}
        assert all("GOAWAY received" in str(end) for end in lost)
        assert ends["ok"] >= 550
        check_balance(channel.pool)


async def test_a_server_that_is_killed_and_comes_back_is_found_again(own_grpc_node: NodeServer, pb: Stubs) -> None:
    ends: Counter[object] = Counter()
    done = False

    async def work(stub: Generated, n: int) -> None:
        while not done:
            try:
                await ask(KINDS[n % 4], stub, pb.Order(number=n, replies=1))
                ends["ok"] += 1
            except grpc.aio.AioRpcError as error:
                ends[error.code()] += 1
                await trio.sleep(0.01)

    async with PooledChannel(own_grpc_node.target) as channel:
        async with trio.open_nursery() as nursery:
            for n in range(10):
                nursery.start_soon(work, pb.PeerStub(channel), n)
            for _ in range(2):
                wanted = ends["ok"] + 100
                await until(lambda: ends["ok"] >= wanted)  # noqa: B023 - the condition ends with the round
                own_grpc_node.kill()
                await trio.to_thread.run_sync(own_grpc_node.start)
            wanted = ends["ok"] + 100
            await until(lambda: ends["ok"] >= wanted)
            done = True
        assert set(ends) == {"ok", grpc.StatusCode.UNAVAILABLE}
        check_balance(channel.pool)
