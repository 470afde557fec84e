"""Errors that are raised more than once, and functions of users that fail."""

import traceback
from typing import Any

import grpc.aio
import pytest
import trio

from nimblepool_grpc import PooledChannel
from tests.grpc.kinds import Kind, begin, every_kind, finish
from tests.grpc.peer import PATIENCE, Server, nothing_runs
from tests.grpc.stubs import Stubs


@every_kind
async def test_an_error_does_not_grow_with_those_who_ask_for_it(pb: Stubs, kind: Kind) -> None:
    lengths: list[int] = []
    async with PooledChannel("127.0.0.1:1", breaker=None) as channel:
        call = begin(kind, pb.PeerStub(channel), pb.Order())
        for _ in range(10):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await finish(kind, call)
            lengths.append(len(list(traceback.walk_tb(caught.value.__traceback__))))
    assert lengths[1] == lengths[-1]


def misread(_: bytes) -> Any:  # noqa: ANN401 - a deserializer's
    raise ValueError("not understood")


@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize("kind", ["Down", "Both"])
async def test_a_stream_whose_responses_cannot_be_read_ends(
    channel: PooledChannel, pb: Stubs, server: Server, kind: Kind, read: bool
) -> None:
    make: Any = channel.unary_stream if kind == "Down" else channel.stream_stream
    method = make(f"/nimblepool.tests.Peer/{kind}", pb.Order.SerializeToString, misread)
    order = pb.Order(replies=10_000, pause=0.01)
    call = method(order if kind == "Down" else iter([order]))
    with trio.fail_after(PATIENCE):
        with pytest.raises(ValueError, match="not understood"):
            await (call.read() if read else anext(call))
        assert call.done()
        assert channel.stats.leases == 0
        await nothing_runs(server)
