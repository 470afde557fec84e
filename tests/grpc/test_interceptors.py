"""Interceptors: subclasses of grpc.aio's own four classes, awaited on trio."""

import gc
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
import trio

from nimblepool_grpc import PooledChannel, RpcCancelled, RpcEnded
from tests.grpc.kinds import Kind, ask, begin, each, every_kind, finish
from tests.grpc.peer import PATIENCE, Server, nothing_runs, until
from tests.grpc.stubs import Generated, Stubs


class Tagging(
    grpc.aio.UnaryUnaryClientInterceptor,
    grpc.aio.UnaryStreamClientInterceptor,
    grpc.aio.StreamUnaryClientInterceptor,
    grpc.aio.StreamStreamClientInterceptor,
):
    """Adds to the metadata, and takes its time over it."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.seen: list[Generated] = []

    async def _intercept(self, continuation: Generated, details: Generated, request: Generated) -> Generated:
        self.seen.append(details)
        await trio.lowlevel.checkpoint()
        details.metadata.add("tag", self.tag)
        return await continuation(details, request)

    async def intercept_unary_unary(
        self, continuation: Generated, client_call_details: Generated, request: Generated
    ) -> Generated:
        return await self._intercept(continuation, client_call_details, request)

    async def intercept_unary_stream(
        self, continuation: Generated, client_call_details: Generated, request: Generated
    ) -> Generated:
        return await self._intercept(continuation, client_call_details, request)

    async def intercept_stream_unary(
        self, continuation: Generated, client_call_details: Generated, request_iterator: Generated
    ) -> Generated:
        return await self._intercept(continuation, client_call_details, request_iterator)

    async def intercept_stream_stream(
        self, continuation: Generated, client_call_details: Generated, request_iterator: Generated
    ) -> Generated:
        return await self._intercept(continuation, client_call_details, request_iterator)


class Unary(grpc.aio.UnaryUnaryClientInterceptor):
    """Does what a test says."""

    def __init__(self, intercept: Generated) -> None:
        self._intercept = intercept

    async def intercept_unary_unary(
        self, continuation: Generated, client_call_details: Generated, request: Generated
    ) -> Generated:
        return await self._intercept(continuation, client_call_details, request)


class Down(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, intercept: Generated) -> None:
        self._intercept = intercept

    async def intercept_unary_stream(
        self, continuation: Generated, client_call_details: Generated, request: Generated
    ) -> Generated:
        return await self._intercept(continuation, client_call_details, request)


class Counting(grpc.aio.StreamUnaryClientInterceptor, grpc.aio.StreamStreamClientInterceptor):
    """Sees every request."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    async def _see(self, requests: Generated) -> AsyncIterator[Generated]:
        async for request in requests:
            self.numbers.append(request.number)
            yield request

    async def intercept_stream_unary(
        self, continuation: Generated, client_call_details: Generated, request_iterator: Generated
    ) -> Generated:
        return await continuation(client_call_details, self._see(request_iterator))

    async def intercept_stream_stream(
        self, continuation: Generated, client_call_details: Generated, request_iterator: Generated
    ) -> Generated:
        return await continuation(client_call_details, self._see(request_iterator))


@every_kind
async def test_interceptors_run_from_the_outermost_in_and_change_what_is_sent(
    server: Server, pb: Stubs, kind: Kind
) -> None:
    outer, inner = Tagging("outer"), Tagging("inner")
    async with PooledChannel(server.target, interceptors=[outer, inner]) as channel:
        reply = await ask(kind, pb.PeerStub(channel), pb.Order(replies=1), metadata=[("own", "1")], timeout=PATIENCE)
        assert [each for each in reply.metadata if each.startswith(("own", "tag"))] == [
            "own=1", "tag=outer", "tag=inner",
        ]  # fmt: skip
        assert 0 < reply.remaining < 1.1 * PATIENCE  # gRPC rounds up on its way
        assert channel.stats.leases == 0
    assert isinstance(outer.seen[0], grpc.aio.ClientCallDetails)
    details: Generated = outer.seen[0]
    assert (details.method, details.timeout) == (f"/nimblepool.tests.Peer/{kind}".encode(), PATIENCE)
    assert (details.credentials, details.wait_for_ready) == (None, None)


@every_kind
async def test_a_pinned_channel_is_intercepted_too(server: Server, pb: Stubs, kind: Kind) -> None:
    tagging = Tagging("t")
    async with PooledChannel(server.target, interceptors=[tagging]) as channel, channel.lease() as leased:
        assert "tag=t" in (await ask(kind, pb.PeerStub(leased), pb.Order(replies=1))).metadata


@every_kind
async def test_an_intercepted_call_tells_all_that_others_tell(server: Server, pb: Stubs, kind: Kind) -> None:
    ended: list[object] = []
    metadata = [("initial-a", "1"), ("trailing-b", "2")]
    async with PooledChannel(server.target, interceptors=[Tagging("t")]) as channel:
        call = begin(kind, pb.PeerStub(channel), pb.Order(replies=1), metadata=metadata)
        call.add_done_callback(ended.append)
        assert not call.done()
        await finish(kind, call)
        assert await call.code() is grpc.StatusCode.OK
        assert (await call.initial_metadata())["initial-a"] == "1"
        assert (await call.trailing_metadata())["trailing-b"] == "2"
        assert await call.details() == await call.debug_error_string() == ""
        assert call.done()
        assert not call.cancelled()
        assert not call.cancel()
        assert ended == [call]


async def test_an_interceptor_may_answer_by_itself(server: Server, pb: Stubs) -> None:
    async def answer(_: Generated, __: Generated, request: Generated) -> Generated:
        return pb.Reply(number=request.number + 1)

    async with PooledChannel(server.target, interceptors=[Unary(answer)]) as channel:
        call = pb.PeerStub(channel).Single(pb.Order(number=1))
        assert (await call).number == 2
        assert await call.code() is grpc.StatusCode.OK
        assert channel.stats.started == 0


async def test_an_interceptor_may_try_again(server: Server, pb: Stubs) -> None:
    codes: list[grpc.StatusCode] = []

    async def retry(continuation: Generated, details: Generated, request: Generated) -> Generated:
        call = await continuation(details, request)
        codes.append(await call.code())
        return await continuation(details, pb.Order(number=7))

    async with PooledChannel(server.target, interceptors=[Unary(retry)]) as channel:
        order = pb.Order(code=grpc.StatusCode.ABORTED.value[0])
        assert (await pb.PeerStub(channel).Single(order)).number == 7
    assert codes == [grpc.StatusCode.ABORTED]


async def test_an_interceptor_may_await_the_call_and_hand_it_on(server: Server, pb: Stubs) -> None:
    replies: list[Generated] = []

    async def look(continuation: Generated, details: Generated, request: Generated) -> Generated:
        call = await continuation(details, request)
        replies.append(await call)
        return call

    async with PooledChannel(server.target, interceptors=[Unary(look)]) as channel:
        assert await pb.PeerStub(channel).Single(pb.Order()) is replies[0]
        assert channel.stats.started == 1


async def test_an_interceptor_may_change_every_response(server: Server, pb: Stubs) -> None:
    async def double(continuation: Generated, details: Generated, request: Generated) -> Generated:
        call = await continuation(details, request)

        async def doubled() -> AsyncIterator[Generated]:
            async for reply in call:
                yield pb.Reply(number=reply.number * 2)

        return doubled()

    async with PooledChannel(server.target, interceptors=[Tagging("t"), Down(double)]) as channel:
        call = pb.PeerStub(channel).Down(pb.Order(replies=3))
        assert [reply.number async for reply in call] == [0, 2, 4]
        assert await call.code() is grpc.StatusCode.OK
        again = pb.PeerStub(channel).Down(pb.Order(replies=1))
        assert (await again.read()).number == 0
        assert await again.read() is grpc.aio.EOF


async def test_what_is_written_by_hand_passes_the_interceptors(server: Server, pb: Stubs) -> None:
    counting = Counting()
    async with PooledChannel(server.target, interceptors=[counting, Tagging("t")]) as channel:
        stub = pb.PeerStub(channel)
        up = stub.Up()
        for number in (1, 2):
            await up.write(pb.Order(number=number))
        await up.done_writing()
        assert (await up).number == 3
        async with stub.Both() as both:
            await both.write(pb.Order(number=3))
            assert (await both.read()).number == 3
            await both.done_writing()
            with pytest.raises(RpcEnded):
                await both.write(pb.Order())
            assert await both.read() is grpc.aio.EOF
        assert (await stub.Up(each(pb.Order(number=4)))).number == 4
        fed = stub.Up(each())
        with pytest.raises(grpc.aio.UsageError):
            await fed.write(pb.Order())
        fed.cancel()
    assert counting.numbers == [1, 2, 3, 4]


async def test_writing_through_interceptors_to_a_call_that_has_failed_says_how(server: Server, pb: Stubs) -> None:
    async with PooledChannel(server.target, interceptors=[Counting()]) as channel:
        call = pb.PeerStub(channel).Up()
        await call.write(pb.Order(code=grpc.StatusCode.ABORTED.value[0], details="enough"))
        assert await call.code() is grpc.StatusCode.ABORTED
        with pytest.raises(grpc.aio.AioRpcError, match="enough"):
            await call.write(pb.Order())


async def test_what_an_interceptor_raises_comes_out(server: Server, pb: Stubs) -> None:
    async def refuse(*_: Generated) -> Generated:
        raise LookupError("no")

    async with PooledChannel(server.target, interceptors=[Unary(refuse)]) as channel:
        call = pb.PeerStub(channel).Single(pb.Order())
        for _ in range(2):
            with pytest.raises(LookupError):
                await call
        assert call.done()
        assert channel.stats.started == 0


async def test_a_call_can_be_cancelled_while_an_interceptor_is_at_it(server: Server, pb: Stubs) -> None:
    begun = trio.Event()

    async def hang(*_: Generated) -> Generated:
        begun.set()
        await trio.sleep_forever()

    async def cancel(call: Generated) -> None:
        await begun.wait()
        assert call.cancel()

    async with PooledChannel(server.target, interceptors=[Unary(hang)]) as channel, trio.open_nursery() as nursery:
        call = pb.PeerStub(channel).Single(pb.Order())
        nursery.start_soon(cancel, call)
        with pytest.raises(RpcCancelled):
            await call
        assert call.cancelled()
        assert await call.code() is grpc.StatusCode.CANCELLED


@pytest.mark.filterwarnings("error")
async def test_a_call_that_an_interceptor_asked_for_and_did_not_use_is_no_mistake_of_the_clients(
    server: Server, pb: Stubs
) -> None:
    async def hang(continuation: Generated, details: Generated, request: Generated) -> Generated:
        await continuation(details, request)
        await trio.sleep_forever()

    async def answer(continuation: Generated, details: Generated, request: Generated) -> Generated:
        await continuation(details, request)
        return pb.Reply(number=7)

    async def answer_all(continuation: Generated, details: Generated, request: Generated) -> AsyncIterator[Generated]:
        await continuation(details, request)
        return each(pb.Reply(number=8))

    interceptors = [Unary(answer), Down(answer_all)]
    async with PooledChannel(server.target, interceptors=interceptors) as channel:
        assert (await pb.PeerStub(channel).Single(pb.Order())).number == 7
        assert [reply.number async for reply in pb.PeerStub(channel).Down(pb.Order())] == [8]
    async with PooledChannel(server.target, interceptors=[Unary(hang)]) as channel:
        with trio.move_on_after(0.01):
            await pb.PeerStub(channel).Single(pb.Order())
    gc.collect()


@pytest.mark.parametrize("kind", ["Down", "Both"])
async def test_an_intercepted_stream_that_is_dropped_gives_its_lease_back(
    server: Server, pb: Stubs, kind: Kind
) -> None:
    async with PooledChannel(server.target, interceptors=[Tagging("t")]) as channel:
        async for _ in begin(kind, pb.PeerStub(channel), pb.Order(replies=1000, size=1000)):
            break
        gc.collect()
        await until(lambda: not channel.stats.leases)
    await nothing_runs(server)


async def test_leaving_the_block_of_an_intercepted_call_ends_it(server: Server, pb: Stubs) -> None:
    async with PooledChannel(server.target, interceptors=[Tagging("t")]) as channel:
        async with pb.PeerStub(channel).Down(pb.Order(replies=-1)) as call:
            await call.read()
        assert call.cancelled()
        assert channel.stats.leases == 0
    await nothing_runs(server)


def test_what_is_no_interceptor_is_refused() -> None:
    no_interceptors: Generated = [object()]
    with pytest.raises(TypeError, match="StreamStreamClientInterceptor"):
        PooledChannel("localhost:1", interceptors=no_interceptors)
