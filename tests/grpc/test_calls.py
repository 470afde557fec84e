from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
import trio
import trio.testing

from nimblepool_grpc import PooledChannel, RpcEnded
from tests.grpc.kinds import Kind, ask, begin, each, every_kind, finish
from tests.grpc.peer import PATIENCE, Server, nothing_runs, until
from tests.grpc.stubs import Generated, Stubs

BOTH_METADATA = [("initial-key", "early"), ("trailing-key", "late"), ("trailing-key-bin", b"\x00\xff")]


@every_kind
async def test_a_generated_stub_gets_its_reply(stub: Generated, pb: Stubs, kind: Kind) -> None:
    reply = await ask(kind, stub, pb.Order(number=7, payload=b"seven", replies=int(kind == "Down")))
    assert reply.count == 1
    assert reply.number == (0 if kind == "Down" else 7)
    assert reply.payload == (b"" if kind == "Up" else b"seven")


async def test_replies_come_in_order(stub: Generated, pb: Stubs) -> None:
    assert [reply.number async for reply in stub.Down(pb.Order(replies=100))] == list(range(100))


async def test_a_stream_without_a_message_ends_at_once(stub: Generated, pb: Stubs) -> None:
    assert [reply async for reply in stub.Down(pb.Order())] == []
    assert [reply async for reply in stub.Both(each())] == []
    assert (await stub.Up(each())).count == 0


@pytest.mark.parametrize("iterate", [each, lambda *orders: iter(orders), lambda *orders: list(orders)])
async def test_orders_come_from_any_iterable_in_order(
    stub: Generated, pb: Stubs, iterate: Callable[..., Iterable[Generated]]
) -> None:
    orders = [pb.Order(number=n) for n in range(100)]
    assert (await stub.Up(iterate(*orders))).number == sum(range(100))
    assert [reply.number async for reply in stub.Both(iterate(*orders))] == list(range(100))


async def test_messages_are_read_and_written_one_by_one(stub: Generated, pb: Stubs) -> None:
    call = stub.Both()
    for n in range(3):
        await call.write(pb.Order(number=n))
        assert (await call.read()).number == n
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK

    call = stub.Up()
    for n in range(3):
        await call.write(pb.Order(number=n))
    await call.done_writing()
    assert (await call).number == 3

    call = stub.Down(pb.Order(replies=2))
    assert [(await call.read()).number for _ in range(2)] == [0, 1]
    assert await call.read() is grpc.aio.EOF


async def test_one_task_reads_while_another_writes(stub: Generated, pb: Stubs) -> None:
    async with stub.Both() as call, trio.open_nursery() as nursery:

        async def write() -> None:
            for n in range(200):
                await call.write(pb.Order(number=n))
            await call.done_writing()

        nursery.start_soon(write)
        assert [reply.number async for reply in call] == list(range(200))


@pytest.mark.parametrize("kind", ["Single", "Up"])
async def test_a_reply_can_be_awaited_again(stub: Generated, pb: Stubs, kind: Kind) -> None:
    call = begin(kind, stub, pb.Order(number=1))
    assert await call is await call


async def test_several_tasks_can_await_one_call(stub: Generated, pb: Stubs) -> None:
    call = stub.Single(pb.Order(number=1, sleep=0.02))
    replies: list[Any] = []

    async def wait() -> None:
        replies.append(await call)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(wait)
    assert [reply.number for reply in replies] == [1, 1, 1]


@every_kind
async def test_a_call_that_succeeds_has_metadata_and_a_status(stub: Generated, pb: Stubs, kind: Kind) -> None:
    call = begin(kind, stub, pb.Order(replies=int(kind == "Down")), metadata=BOTH_METADATA)
    assert (await call.initial_metadata())["initial-key"] == "early"
    reply = await finish(kind, call)
    trailing = await call.trailing_metadata()
    assert isinstance(trailing, grpc.aio.Metadata)
    assert (trailing["trailing-key"], trailing["trailing-key-bin"]) == ("late", b"\x00\xff")
    assert (await call.code(), await call.details()) == (grpc.StatusCode.OK, "")
    assert call.done()
    assert not call.cancelled()
    assert "initial-key=early" in reply.metadata


@every_kind
@pytest.mark.parametrize("ask_first", ["reply", "status"])
async def test_a_call_that_fails_says_all_that_the_server_said(
    stub: Generated, pb: Stubs, kind: Kind, ask_first: str
) -> None:
    order = pb.Order(code=grpc.StatusCode.NOT_FOUND.value[0], details="nobody of that name")
    call = begin(kind, stub, order, metadata=BOTH_METADATA)
    if ask_first == "status":
        assert await call.code() is grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.aio.AioRpcError, match="nobody of that name") as caught:
        await finish(kind, call)
    error = caught.value
    assert isinstance(error, grpc.RpcError)
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "nobody of that name")
    assert error.trailing_metadata()["trailing-key"] == "late"
    assert error.initial_metadata()["initial-key"] == "early"
    assert "nobody of that name" in (error.debug_error_string() or "")
    assert (await call.code(), await call.details()) == (grpc.StatusCode.NOT_FOUND, "nobody of that name")
    assert (await call.trailing_metadata())["trailing-key"] == "late"
    assert (await call.initial_metadata())["initial-key"] == "early"


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
async def test_every_status_comes_through(stub: Generated, pb: Stubs, code: grpc.StatusCode) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Single(pb.Order(code=code.value[0], details="because"))
    assert (caught.value.code(), caught.value.details()) == (code, "because")


async def test_a_failure_comes_after_the_replies_before_it(stub: Generated, pb: Stubs) -> None:
    call = stub.Down(pb.Order(replies=3, code=grpc.StatusCode.DATA_LOSS.value[0]))
    assert [(await call.read()).number for _ in range(3)] == [0, 1, 2]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.DATA_LOSS


@pytest.mark.parametrize("make", [list, tuple, lambda pairs: grpc.aio.Metadata(*pairs)])
async def test_metadata_comes_in_any_shape(
    stub: Generated, pb: Stubs, make: Callable[[Iterable[object]], object]
) -> None:
    reply = await stub.Single(pb.Order(), metadata=make([("one", "1"), ("one", "2"), ("two-bin", b"\x00")]))
    assert [pair for pair in reply.metadata if pair.startswith("one")] == ["one=1", "one=2"]
    assert "two-bin=b'\\x00'" in reply.metadata


async def test_a_method_that_the_server_lacks_is_unimplemented(channel: PooledChannel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary("/nobody.Knows/This")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_without_serializers_messages_are_bytes(channel: PooledChannel, pb: Stubs) -> None:
    method = channel.unary_unary("/nimblepool.tests.Peer/Single")
    reply = pb.Reply.FromString(await method(pb.Order(number=5).SerializeToString()))
    assert reply.number == 5


async def test_a_message_larger_than_allowed_is_refused(stub: Generated, pb: Stubs, server: Server) -> None:
    order = pb.Order(size=5_000_000)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Single(order)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    options = [("grpc.max_receive_message_length", -1)]
    async with PooledChannel(server.target, options=options) as generous:
        assert len((await pb.PeerStub(generous).Single(order)).payload) == 5_000_000


@every_kind
async def test_what_cannot_be_serialized_costs_no_lease(stub: Generated, pb: Stubs, kind: Kind) -> None:
    with pytest.raises((TypeError, AttributeError)):
        await ask(kind, stub, "not an order")


@every_kind
async def test_what_cannot_be_deserialized_costs_no_lease(channel: PooledChannel, pb: Stubs, kind: Kind) -> None:
    def refuse(_: bytes) -> object:
        raise LookupError("mine")

    shapes = {"Single": "unary_unary", "Down": "unary_stream", "Up": "stream_unary", "Both": "stream_stream"}
    make = getattr(channel, shapes[kind])
    method = make(f"/nimblepool.tests.Peer/{kind}", pb.Order.SerializeToString, refuse)
    order = pb.Order(replies=5)
    with pytest.raises(LookupError, match="mine"):
        await finish(kind, method(order) if kind in {"Single", "Down"} else method(each(order)))


@pytest.mark.parametrize("kind", ["Up", "Both"])
@pytest.mark.parametrize("is_async", [True, False])
async def test_what_a_request_iterator_raises_comes_out_and_ends_the_call(
    stub: Generated, pb: Stubs, server: Server, kind: Kind, is_async: bool
) -> None:
    def plain() -> Iterator[Generated]:
        yield pb.Order(number=1)
        raise RuntimeError("mine")

    async def asynchronous() -> AsyncIterator[Generated]:
        for order in plain():
            yield order

    call = getattr(stub, kind)(asynchronous() if is_async else plain())
    with pytest.raises(RuntimeError, match="mine"):
        await finish(kind, call)
    await nothing_runs(server)
    assert await call.code() is grpc.StatusCode.CANCELLED


@pytest.mark.parametrize("kind", ["Up", "Both"])
async def test_an_answer_before_the_last_order_ends_the_call(stub: Generated, pb: Stubs, kind: Kind) -> None:
    async def endless() -> AsyncIterator[Generated]:
        while True:
            yield pb.Order(number=1, answer=True)
            await trio.sleep(0.001)

    with trio.fail_after(PATIENCE):
        assert (await finish(kind, getattr(stub, kind)(endless()))).number == 1


async def test_writing_to_a_call_that_has_ended_says_how_it_ended(stub: Generated, pb: Stubs) -> None:
    call = stub.Both()
    await call.write(pb.Order(code=grpc.StatusCode.ABORTED.value[0], details="enough"))
    assert await call.code() is grpc.StatusCode.ABORTED
    with pytest.raises(grpc.aio.AioRpcError, match="enough"):
        await call.write(pb.Order())


async def test_writing_after_done_writing_is_a_mistake_that_is_explained(stub: Generated, pb: Stubs) -> None:
    async with stub.Both() as call:
        await call.done_writing()
        with pytest.raises(RpcEnded, match="done_writing"):
            await call.write(pb.Order())


@every_kind
async def test_a_cancelled_call_says_so(stub: Generated, pb: Stubs, server: Server, kind: Kind) -> None:
    call = begin(kind, stub, pb.Order(hold=True))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_is_cancelled, kind, call)
        await until(lambda: server.figures().running == 1)
        assert call.cancel()
    assert call.cancelled()
    assert call.done()
    assert not call.cancel()
    assert await call.code() is grpc.StatusCode.CANCELLED
    await nothing_runs(server)


async def _is_cancelled(kind: Kind, call: Generated) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await finish(kind, call)
    assert caught.value.code() is grpc.StatusCode.CANCELLED


@every_kind
async def test_a_call_that_is_cancelled_before_its_first_use_never_begins(
    channel: PooledChannel, stub: Generated, pb: Stubs, kind: Kind
) -> None:
    call = begin(kind, stub, pb.Order())
    call.cancel()
    await _is_cancelled(kind, call)
    assert channel.stats.started == 0


@every_kind
async def test_a_call_that_nobody_uses_sends_nothing_and_says_so(
    channel: PooledChannel, stub: Generated, pb: Stubs, kind: Kind
) -> None:
    call = begin(kind, stub, pb.Order())
    with pytest.warns(RuntimeWarning, match="never used"):
        del call
    await trio.testing.wait_all_tasks_blocked()
    assert channel.stats.started == 0


@every_kind
@pytest.mark.parametrize("end", ["well", "badly", "by cancelling"])
async def test_who_asked_to_be_told_of_the_end_is_told_once(
    stub: Generated, pb: Stubs, server: Server, kind: Kind, end: str
) -> None:
    told: list[Any] = []
    code = grpc.StatusCode.ABORTED.value[0] if end == "badly" else 0
    call = begin(kind, stub, pb.Order(code=code, replies=1, hold=end == "by cancelling"))
    call.add_done_callback(told.append)
    if end == "well":
        await finish(kind, call)
    elif end == "badly":
        with pytest.raises(grpc.aio.AioRpcError):
            await finish(kind, call)
    else:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_is_cancelled, kind, call)
            await until(lambda: server.figures().running == 1)
            call.cancel()
    await until(lambda: told)
    call.add_done_callback(told.append)
    assert len(told) == 2
    assert told[0] is told[1] is call


async def test_leaving_the_block_of_a_call_ends_it(stub: Generated, pb: Stubs, server: Server) -> None:
    async with stub.Down(pb.Order(replies=-1)) as call:
        assert (await call.read()).number == 0
    assert call.done()
    async with stub.Both() as call:
        await call.write(pb.Order(number=1))
        assert (await call.read()).number == 1
    assert call.cancelled()
    await nothing_runs(server)


async def test_an_error_in_the_block_of_a_call_comes_out_as_it_went_in(
    stub: Generated, pb: Stubs, server: Server
) -> None:
    with pytest.raises(RuntimeError, match="mine"):
        async with stub.Both() as call:
            await call.write(pb.Order())
            raise RuntimeError("mine")
    await nothing_runs(server)


async def test_a_call_that_is_not_used_up_tells_its_connection(stub: Generated, pb: Stubs, server: Server) -> None:
    call = stub.Down(pb.Order(replies=3))
    await call.wait_for_connection()
    assert [reply.number async for reply in call] == [0, 1, 2]


async def test_initial_metadata_comes_before_any_reply(stub: Generated, pb: Stubs, server: Server) -> None:
    async with stub.Down(pb.Order(hold=True), metadata=BOTH_METADATA) as call:
        with trio.fail_after(PATIENCE):
            assert (await call.initial_metadata())["initial-key"] == "early"
        assert not call.done()
