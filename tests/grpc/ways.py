"""The three ways to a channel, so that a test can hold for all of them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, NamedTuple

import grpc.aio
import pytest

from nimblepool_grpc import PooledChannel
from tests.grpc.peer import PATIENCE, Server, nothing_runs, until
from tests.grpc.stubs import Generated, Stubs

How = Literal["plain", "intercepted", "leased"]
every_way: Final[Callable[..., Any]] = pytest.mark.parametrize("how", ["plain", "intercepted", "leased"])


class Passing(
    grpc.aio.UnaryUnaryClientInterceptor,
    grpc.aio.UnaryStreamClientInterceptor,
    grpc.aio.StreamUnaryClientInterceptor,
    grpc.aio.StreamStreamClientInterceptor,
):
    """Changes nothing."""

    async def intercept_unary_unary(
        self, continuation: Generated, client_call_details: Generated, request: Generated
    ) -> Generated:
        return await continuation(client_call_details, request)

    async def intercept_unary_stream(
        self, continuation: Generated, client_call_details: Generated, request: Generated
    ) -> Generated:
        return await continuation(client_call_details, request)

    async def intercept_stream_unary(
        self, continuation: Generated, client_call_details: Generated, request_iterator: Generated
    ) -> Generated:
        return await continuation(client_call_details, request_iterator)

    async def intercept_stream_stream(
        self, continuation: Generated, client_call_details: Generated, request_iterator: Generated
    ) -> Generated:
        return await continuation(client_call_details, request_iterator)


class Way(NamedTuple):
    """A channel, a stub that reaches it in one of the ways, and how many leases there are when nothing runs."""

    channel: PooledChannel
    stub: Generated
    leases: int


@asynccontextmanager
async def way(how: How, server: Server, pb: Stubs) -> AsyncIterator[Way]:
    """Open a channel, on which the block must leave no call."""
    interceptors = [Passing()] if how == "intercepted" else None
    async with PooledChannel(server.target, interceptors=interceptors, checkout_timeout=PATIENCE) as channel:
        if how == "leased":
            async with channel.lease() as leased:
                yield Way(channel, pb.PeerStub(leased), 1)
        else:
            yield Way(channel, pb.PeerStub(channel), 0)
        await until(lambda: not channel.stats.leases)
    await nothing_runs(server)
