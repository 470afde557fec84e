import gc
import random
from collections import Counter

import grpc
import grpc.aio
import pytest
import trio

from nimblepool.testing import check_balance, sweep
from nimblepool_grpc import PooledChannel
from tests.grpc.figures import blocks, memory, threads
from tests.grpc.kinds import KINDS, Kind, ask, begin, every_kind, finish
from tests.grpc.peer import PATIENCE, Server, nothing_runs, until
from tests.grpc.stubs import Generated, Stubs
from tests.grpc.uses import Use, both, down, single, up

LONG = pytest.mark.servers  # run with those that take long anyway


async def test_cancelled_at_every_checkpoint_a_pinned_channel_is_given_back(
    channel: PooledChannel, pb: Stubs, server: Server
) -> None:
    async def use() -> None:
        async with channel.lease() as one:
            mine = pb.PeerStub(one)
            await single(mine, pb)
            await down(mine, pb)

    async def check() -> None:
        await nothing_runs(server)
        assert channel.stats.leases == 0
        check_balance(channel.pool)

    with trio.fail_after(PATIENCE):
        assert await sweep(use, check) >= 4


@pytest.mark.parametrize("use", [single, down, up, both], ids=lambda use: use.__name__)
async def test_cancelled_while_the_pool_opens_and_closes_a_call_leaves_nothing_behind(
    server: Server, pb: Stubs, use: Use
) -> None:
    channels: list[PooledChannel] = []

    async def scenario() -> None:
        async with PooledChannel(server.target) as channel:
            channels.append(channel)
            await use(pb.PeerStub(channel), pb)

    async def after() -> None:
        await nothing_runs(server)
        for channel in channels:
            check_balance(channel.pool)
        channels.clear()

    with trio.fail_after(PATIENCE):
        assert await sweep(scenario, after) >= 4


@every_kind
async def test_cancelled_at_every_checkpoint_while_it_waits_for_a_lease_a_call_leaves_nothing_behind(
    server: Server, pb: Stubs, kind: Kind
) -> None:
    async with PooledChannel(server.target, channels=1, calls_per_channel=1, checkout_timeout=PATIENCE) as channel:
        stub = pb.PeerStub(channel)

        async def use() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, "Single", stub, pb.Order(sleep=0.005))
                await until(lambda: channel.stats.leases)
                await ask(kind, stub, pb.Order(replies=1))

        async def check() -> None:
            assert (channel.stats.leases, channel.stats.waiting) == (0, 0)
            check_balance(channel.pool)
            await single(stub, pb)

        assert await sweep(use, check) >= 4
    await nothing_runs(server)


@every_kind
async def test_a_call_that_waits_for_a_lease_can_be_cancelled_by_its_own_method(
    server: Server, pb: Stubs, kind: Kind
) -> None:
    async with PooledChannel(server.target, channels=1, calls_per_channel=1, checkout_timeout=PATIENCE) as channel:
        stub = pb.PeerStub(channel)
        async with stub.Both() as holder:
            call = begin(kind, stub, pb.Order())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_is_cancelled, kind, call)
                await until(lambda: channel.stats.waiting)
                call.cancel()
                with trio.fail_after(1):
                    await until(lambda: not channel.stats.waiting)
            await holder.write(pb.Order(number=1))
            assert (await holder.read()).number == 1
        assert call.cancelled()


async def _is_cancelled(kind: Kind, call: Generated) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await finish(kind, call)
    assert caught.value.code() is grpc.StatusCode.CANCELLED


@every_kind
async def test_a_cancelled_call_ends_in_the_server(
    channel: PooledChannel, stub: Generated, pb: Stubs, server: Server, kind: Kind
) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(ask, kind, stub, pb.Order(hold=True))
        await until(lambda: server.figures().running == 10)
        assert channel.stats.leases == 10
        nursery.cancel_scope.cancel()
    assert channel.stats.leases == 0
    await nothing_runs(server)


@every_kind
async def test_cancelling_needs_no_answer_from_the_server(own_server: Server, pb: Stubs, kind: Kind) -> None:
    async with PooledChannel(own_server.target) as channel:
        stub = pb.PeerStub(channel)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, kind, stub, pb.Order(hold=True))
            await until(lambda: own_server.figures().running == 1)
            own_server.freeze()
            nursery.cancel_scope.cancel()
            began = trio.current_time()
        assert trio.current_time() - began < 1
        assert channel.stats.leases == 0


@pytest.mark.parametrize("kind", ["Down", "Both"])
async def test_a_cancelled_read_ends_its_call(stub: Generated, pb: Stubs, server: Server, kind: Kind) -> None:
    call = begin(kind, stub, pb.Order(replies=1, hold=True))
    with trio.move_on_after(0.05) as scope:
        await call.read()
    assert scope.cancelled_caught
    assert call.done()
    assert await call.code() is grpc.StatusCode.CANCELLED
    await nothing_runs(server)


async def test_cancelling_one_who_waits_for_a_status_leaves_the_call_alone(stub: Generated, pb: Stubs) -> None:
    async with stub.Both() as call:
        await call.write(pb.Order(number=1))
        for wait in (call.code, call.details, call.trailing_metadata):
            with trio.move_on_after(0.02) as scope:
                await wait()
            assert scope.cancelled_caught
        assert (await call.read()).number == 1
        await call.write(pb.Order(number=2))
        assert (await call.read()).number == 2


async def test_calls_cancelled_at_random_disturb_no_other(
    channel: PooledChannel, stub: Generated, pb: Stubs, server: Server
) -> None:
    rng = random.Random(7)
    ends: Counter[str] = Counter()

    async def call(n: int) -> None:
        kind = KINDS[n % 4]
        impatient = n % 5 != 0
        with trio.move_on_after(rng.uniform(0, 0.1) if impatient else PATIENCE) as scope:
            order = pb.Order(number=n, replies=2 * (kind == "Down"), sleep=rng.uniform(0, 0.05))
            reply = await ask(kind, stub, order)
            assert reply.number == (1 if kind == "Down" else n)
            ends["answered" if impatient else "answered the patient"] += 1
        ends["cancelled"] += scope.cancelled_caught

    for _ in range(4):
        async with trio.open_nursery() as nursery:
            for n in range(250):
                nursery.start_soon(call, n)
    assert ends["answered the patient"] == 200
    assert ends["cancelled"] >= 200
    assert ends.total() == 1000
    await nothing_runs(server)
    assert channel.stats.leases == 0
    assert channel.stats.lost == 0


async def _cancel_many(stub: Generated, pb: Stubs, server: Server, calls: int) -> None:
    """Begin calls of all kinds, some of which bring a message, and cancel them: most when they have begun there."""

    async def call(n: int) -> None:
        match n % 6:
            case 4:
                async for _ in stub.Down(pb.Order(replies=-1, pause=0.005)):
                    pass
            case 5:
                async with stub.Both() as both:
                    await both.write(pb.Order())
                    await both.read()
                    await both.read()
            case k:
                await ask(KINDS[k], stub, pb.Order(hold=True))

    for step in range(calls // 100):
        async with trio.open_nursery() as nursery:
            for n in range(100):
                nursery.start_soon(call, n)
            if step % 4:
                await until(lambda: server.figures().running >= 70)
            else:
                await trio.sleep(0.001 * (step % 10))
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("calls", [3_000, pytest.param(30_000, marks=LONG)])
async def test_thousands_of_cancelled_calls_leave_neither_memory_nor_threads_nor_calls(
    channel: PooledChannel, stub: Generated, pb: Stubs, server: Server, calls: int
) -> None:
    await _cancel_many(stub, pb, server, 1_000)
    await nothing_runs(server)
    before = (threads(), blocks(), memory())
    begun = sum(server.figures().begun.values())
    await _cancel_many(stub, pb, server, calls)
    await nothing_runs(server)
    assert sum(server.figures().begun.values()) - begun > calls // 2
    after = (threads(), blocks(), memory())
    assert after[0] < before[0] + 10  # the core's own come and go
    assert (after[1] - before[1]) / calls < 0.3
    assert (after[2] - before[2]) / calls < 600
    assert channel.stats.leases == 0


async def test_an_iteration_that_is_broken_off_gives_its_lease_back(
    channel: PooledChannel, stub: Generated, pb: Stubs, server: Server
) -> None:
    for _ in range(20):
        async for reply in stub.Down(pb.Order(replies=-1)):
            if reply.number == 2:
                break
    gc.collect()
    await until(lambda: not channel.stats.leases)
    await nothing_runs(server)


async def test_a_task_may_finish_what_another_began(stub: Generated, pb: Stubs) -> None:
    call = stub.Both()
    replies: list[int] = []

    async def begin_it() -> None:
        await call.write(pb.Order(number=1))

    async def finish_it() -> None:
        replies.append((await call.read()).number)
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF

    for use in (begin_it, finish_it):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use)
    assert replies == [1]
    assert await finish("Single", stub.Single(pb.Order(number=2)))
