"""What clients do with calls; each use ends well if it is not disturbed."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
import grpc.aio
import pytest

from tests.grpc.kinds import each
from tests.grpc.stubs import Generated, Stubs

Use = Callable[[Any, Stubs], Awaitable[object]]


async def single(stub: Generated, pb: Stubs) -> None:
    assert (await stub.Single(pb.Order(number=1))).number == 1


async def single_and_its_metadata(stub: Generated, pb: Stubs) -> None:
    call = stub.Single(pb.Order(number=1), metadata=[("initial-a", "1"), ("trailing-b", "2")])
    assert (await call.initial_metadata())["initial-a"] == "1"
    assert (await call).number == 1
    assert (await call.trailing_metadata())["trailing-b"] == "2"
    assert await call.code() is grpc.StatusCode.OK


async def failing(stub: Generated, pb: Stubs) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.Single(pb.Order(code=grpc.StatusCode.ABORTED.value[0]))


async def down(stub: Generated, pb: Stubs) -> None:
    assert [reply.number async for reply in stub.Down(pb.Order(replies=3))] == [0, 1, 2]


async def down_read(stub: Generated, pb: Stubs) -> None:
    async with stub.Down(pb.Order(replies=-1)) as call:
        assert (await call.read()).number == 0
        assert (await call.read()).number == 1


async def up(stub: Generated, pb: Stubs) -> None:
    assert (await stub.Up(each(pb.Order(number=1), pb.Order(number=2)))).number == 3


async def up_write(stub: Generated, pb: Stubs) -> None:
    async with stub.Up() as call:
        await call.write(pb.Order(number=1))
        await call.write(pb.Order(number=2))
        await call.done_writing()
        assert (await call).number == 3


async def both(stub: Generated, pb: Stubs) -> None:
    orders = each(pb.Order(number=1), pb.Order(number=2))
    assert [reply.number async for reply in stub.Both(orders)] == [1, 2]


async def both_written_and_read(stub: Generated, pb: Stubs) -> None:
    async with stub.Both() as call:
        await call.write(pb.Order(number=1))
        assert (await call.read()).number == 1
        await call.write(pb.Order(number=2))
        assert (await call.read()).number == 2
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


USES: Final[list[Use]] = [
    single, single_and_its_metadata, failing, down, down_read, up, up_write, both, both_written_and_read,
]  # fmt: skip
every_use: Final[Callable[..., Any]] = pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
