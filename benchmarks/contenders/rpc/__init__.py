"""gRPC clients. grpc.aio's and ours have the same callables, so that what is asked of them is written once, here.

No serializer is set: messages are bytes on both sides, and protobuf's time is in no figure.
"""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any, TypeAlias

from benchmarks.servers.messages import COUNT, METHOD, REQUEST, RESPONSE, SERVICE, counted
from benchmarks.servers.targets import BOTH, REQUESTS, RESPONSES, UNARY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.contender import Ask

    Channel: TypeAlias = Any
    Way: TypeAlias = Callable[[Channel], Ask]

PATH = f"/{SERVICE}/{METHOD}"


def asking(channels: Sequence[Channel], way: str) -> Ask:
    """Return what makes a call over the next of ``channels``, in one of the `WAYS`, and checks what it brings."""
    asks = [WAYS[way](channel) for channel in channels]
    if len(asks) == 1:
        return asks[0]
    turns = cycle(asks)

    async def ask() -> None:
        await next(turns)()

    return ask


def _unary(channel: Channel) -> Ask:
    call = channel.unary_unary(PATH)

    async def ask() -> None:
        _check(await call(REQUEST), RESPONSE)

    return ask


def _response_stream(channel: Channel) -> Ask:
    begin = channel.unary_stream(PATH)

    async def ask() -> None:
        count = 0
        async for message in begin(REQUEST):
            _check(message, RESPONSE)
            count += 1
        _check(count, COUNT)

    return ask


def _request_stream(channel: Channel) -> Ask:
    begin = channel.stream_unary(PATH)

    async def ask() -> None:
        call = begin()
        for _ in range(COUNT):
            await call.write(REQUEST)
        await call.done_writing()
        _check(await call, counted(COUNT))

    return ask


def _both_ways(channel: Channel) -> Ask:
    begin = channel.stream_stream(PATH)

    async def ask() -> None:
        call = begin()
        for _ in range(COUNT):
            await call.write(REQUEST)
            _check(await call.read(), RESPONSE)
        await call.done_writing()
        # The end, which is a falsy object in grpc.aio and here.
        _check(bool(await call.read()), expected=False)

    return ask


def _check(found: object, expected: object) -> None:
    if found != expected:
        raise RuntimeError(f"{found!r} instead of {expected!r}")


WAYS: Mapping[str, Way] = {
    UNARY: _unary,
    RESPONSES: _response_stream,
    REQUESTS: _request_stream,
    BOTH: _both_ways,
}
