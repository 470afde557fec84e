"""What can happen to a stream between its first message and its last."""

import contextvars
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
import trio
import trio.testing

from nimblepool_grpc import PooledChannel, RpcCancelled
from tests.grpc.kinds import Kind, finish
from tests.grpc.peer import PATIENCE, Server, nothing_runs, until
from tests.grpc.stubs import Generated, Stubs

REQUEST_STREAMS: list[Kind] = ["Up", "Both"]
with_requests = pytest.mark.parametrize("kind", REQUEST_STREAMS)
SIZE = 65536
caller: contextvars.ContextVar[str] = contextvars.ContextVar("caller")


@with_requests
async def test_a_request_iterator_that_waits_is_closed_when_its_call_ends(
    stub: Generated, pb: Stubs, kind: Kind
) -> None:
    closed = trio.Event()

    async def orders() -> AsyncIterator[Generated]:
        try:
            yield pb.Order(number=1, answer=True)
            await trio.sleep_forever()
        finally:
            closed.set()

    assert (await finish(kind, getattr(stub, kind)(orders()))).number == 1
    with trio.fail_after(PATIENCE):
        await closed.wait()


@with_requests
async def test_a_request_iterator_is_closed_when_its_call_is_cancelled(
    stub: Generated, pb: Stubs, server: Server, kind: Kind
) -> None:
    closed = trio.Event()

    async def orders() -> AsyncIterator[Generated]:
        try:
            while True:
                yield pb.Order(hold=True)
                await trio.sleep(0.001)
        finally:
            closed.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(finish, kind, getattr(stub, kind)(orders()))
        await until(lambda: server.figures().running == 1)
        nursery.cancel_scope.cancel()
    with trio.fail_after(PATIENCE):
        await closed.wait()


@with_requests
async def test_a_generator_of_requests_is_closed_when_its_call_ends(stub: Generated, pb: Stubs, kind: Kind) -> None:
    closed = trio.Event()

    def orders() -> Iterator[Generated]:
        try:
            while True:
                yield pb.Order(number=1, answer=True)
        finally:
            closed.set()

    generator = orders()  # held here, so that no collector closes it
    call = getattr(stub, kind)(generator)
    assert (await finish(kind, call)).number == 1
    with trio.fail_after(PATIENCE):
        await closed.wait()
    del generator


@with_requests
async def test_what_a_request_iterator_raises_comes_out_once_and_is_the_cause_after_that(
    stub: Generated, pb: Stubs, kind: Kind
) -> None:
    error = LookupError("the iterator's")
    call = getattr(stub, kind)(_failing(pb, error))
    assert await call.code() is grpc.StatusCode.CANCELLED
    with pytest.raises(LookupError) as caught:
        await finish(kind, call)
    assert caught.value is error
    for _ in range(2):
        with pytest.raises(RpcCancelled) as cancelled:
            await finish(kind, call)
        assert cancelled.value.__cause__ is error


@with_requests
async def test_what_a_request_iterator_raises_is_logged_if_nobody_gets_to_see_it(
    stub: Generated, pb: Stubs, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    for words in ("seen", "not seen"):
        call = getattr(stub, kind)(_failing(pb, LookupError(words)))
        assert await call.code() is grpc.StatusCode.CANCELLED
        if words == "seen":
            with pytest.raises(LookupError):
                await finish(kind, call)
        del call
    gc.collect()
    assert [repr(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["LookupError('not seen')"]


def _failing(pb: Stubs, error: Exception) -> Iterator[Generated]:
    yield pb.Order(number=1)
    raise error


@with_requests
async def test_a_request_iterator_sees_the_callers_context(stub: Generated, pb: Stubs, kind: Kind) -> None:
    seen: list[str] = []

    async def orders() -> AsyncIterator[Generated]:
        seen.append(caller.get())
        yield pb.Order(number=1)

    token = caller.set("me")
    await finish(kind, getattr(stub, kind)(orders()))
    caller.reset(token)
    assert seen == ["me"]


async def test_a_request_iterator_may_itself_call(stub: Generated, pb: Stubs) -> None:
    async def orders() -> AsyncIterator[Generated]:
        async for reply in stub.Down(pb.Order(replies=5)):
            yield pb.Order(number=(await stub.Single(pb.Order(number=reply.number))).number)

    assert [reply.number async for reply in stub.Both(orders())] == [0, 1, 2, 3, 4]


async def test_a_call_that_is_given_an_iterator_is_not_written_to(stub: Generated, pb: Stubs) -> None:
    async with stub.Both(iter([pb.Order()])) as call:
        with pytest.raises(grpc.aio.UsageError):
            await call.write(pb.Order())
        with pytest.raises(grpc.aio.UsageError):
            await call.done_writing()


async def test_two_tasks_can_neither_read_nor_write_at_once(stub: Generated, pb: Stubs) -> None:
    async with stub.Both() as call, trio.open_nursery() as nursery:
        await call.write(pb.Order(hold=True))
        nursery.start_soon(call.read)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await call.read()

        async def write() -> None:
            while True:
                await call.write(pb.Order(payload=bytes(SIZE)))

        nursery.start_soon(write)
        await trio.testing.wait_all_tasks_blocked(0.1)
        with pytest.raises(trio.BusyResourceError):
            await call.write(pb.Order())
        nursery.cancel_scope.cancel()


@with_requests
async def test_a_deadline_frees_a_writer_whom_the_server_holds_up(
    stub: Generated, pb: Stubs, server: Server, kind: Kind
) -> None:
    call = getattr(stub, kind)(timeout=0.2)
    with trio.fail_after(PATIENCE), pytest.raises(grpc.aio.AioRpcError) as caught:
        await _write_for_ever(call, pb)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await nothing_runs(server)


@with_requests
async def test_the_death_of_a_server_frees_a_writer_whom_it_holds_up(own_server: Server, pb: Stubs, kind: Kind) -> None:
    caught: list[grpc.aio.AioRpcError] = []

    async def write(call: Generated) -> None:
        try:
            await _write_for_ever(call, pb)
        except grpc.aio.AioRpcError as error:
            caught.append(error)

    async with PooledChannel(own_server.target) as channel, trio.open_nursery() as nursery:
        nursery.start_soon(write, getattr(pb.PeerStub(channel), kind)())
        await until(lambda: own_server.figures().running == 1)
        await trio.testing.wait_all_tasks_blocked(0.1)
        own_server.kill()
        await until(lambda: caught)
    assert caught[0].code() is grpc.StatusCode.UNAVAILABLE


@with_requests
async def test_a_writer_whom_the_server_holds_up_can_be_cancelled(
    stub: Generated, pb: Stubs, server: Server, kind: Kind
) -> None:
    call = getattr(stub, kind)()
    with trio.move_on_after(0.2) as scope:
        await _write_for_ever(call, pb)
    assert scope.cancelled_caught
    assert await call.code() is grpc.StatusCode.CANCELLED
    await nothing_runs(server)


async def _write_for_ever(call: Generated, pb: Stubs) -> None:
    await call.write(pb.Order(hold=True))
    while True:
        await call.write(pb.Order(payload=bytes(SIZE)))


@pytest.mark.parametrize("kind", ["Single", "Down"])
@pytest.mark.parametrize(
    "wrong",
    [{"metadata": [("Not a Key", "x")]}, {"metadata": 7}, {"timeout": "soon"}, {"metadata": [("key", object())]}],
)
async def test_a_wrong_argument_is_refused_and_costs_no_lease(
    channel: PooledChannel, stub: Generated, pb: Stubs, kind: Kind, wrong: dict[str, Any]
) -> None:
    with pytest.raises((TypeError, ValueError)):
        await finish(kind, getattr(stub, kind)(pb.Order(replies=1), **wrong))
    assert channel.stats.leases == 0
    assert (await stub.Single(pb.Order(number=1))).number == 1


async def test_a_hundred_streams_go_on_side_by_side(stub: Generated, pb: Stubs) -> None:
    done: list[int] = []

    async def converse(n: int) -> None:
        async with stub.Both() as call:
            for k in range(20):
                await call.write(pb.Order(number=n * 100 + k))
                assert (await call.read()).number == n * 100 + k
        done.append(n)

    async with trio.open_nursery() as nursery:
        for n in range(100):
            nursery.start_soon(converse, n)
    assert sorted(done) == list(range(100))
