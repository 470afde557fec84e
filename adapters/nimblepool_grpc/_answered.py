"""What interceptors may answer with in place of a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import trio
from grpc import StatusCode
from grpc.aio import EOF, Metadata
from grpc.aio import Call as AbstractCall
from grpc.aio import StreamStreamCall as AbstractStreamStreamCall
from grpc.aio import StreamUnaryCall as AbstractStreamUnaryCall
from grpc.aio import UnaryStreamCall as AbstractUnaryStreamCall
from grpc.aio import UnaryUnaryCall as AbstractUnaryUnaryCall

from ._errors import RpcEnded
from ._types import R

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Generator

    from ._types import DoneCallback, EOFType


class Settled(AbstractCall):
    """A call of which nothing was sent, and which has ended well from the beginning."""

    def cancelled(self) -> bool:
        return False

    def done(self) -> bool:
        return True

    def time_remaining(self) -> float | None:
        return None

    def cancel(self) -> bool:
        return False

    def add_done_callback(self, callback: DoneCallback) -> None:
        callback(self)

    async def initial_metadata(self) -> Metadata:
        await trio.lowlevel.checkpoint()
        return Metadata()

    async def trailing_metadata(self) -> Metadata:
        await trio.lowlevel.checkpoint()
        return Metadata()

    async def code(self) -> StatusCode:
        await trio.lowlevel.checkpoint()
        return StatusCode.OK

    async def details(self) -> str:
        await trio.lowlevel.checkpoint()
        return ""

    async def debug_error_string(self) -> str:
        await trio.lowlevel.checkpoint()
        return ""

    async def wait_for_connection(self) -> None:
        await trio.lowlevel.checkpoint()

    async def write(self, request: object) -> None:
        raise RpcEnded(f"an interceptor has answered the call: {request!r} is not sent")

    async def done_writing(self) -> None:
        await trio.lowlevel.checkpoint()


@final
class Answer(Settled, AbstractUnaryUnaryCall[Any, R], AbstractStreamUnaryCall[Any, R]):
    """The response with which an interceptor answered."""

    def __init__(self, response: R) -> None:
        self._response = response

    def __await__(self) -> Generator[Any, Any, R]:
        return self._respond().__await__()

    async def _respond(self) -> R:
        await trio.lowlevel.checkpoint()
        return self._response


@final
class StreamedAnswer(AbstractUnaryStreamCall[Any, R], AbstractStreamStreamCall[Any, R]):
    """The iterator of responses with which an interceptor answered; the rest is that of the call behind it.

    Args:
        call: that call; a `Settled` one if the interceptor asked for none.
        responses: the responses.
    """

    def __init__(self, call: Any, responses: AsyncIterable[R]) -> None:  # noqa: ANN401 - of any kind
        self._call = call
        self._responses = responses
        self._reading: AsyncIterator[R] | None = None

    def __aiter__(self) -> AsyncIterator[R]:
        if self._reading is None:
            self._reading = aiter(self._responses)
        return self._reading

    async def read(self) -> R | EOFType:
        return await anext(aiter(self), EOF)

    def cancelled(self) -> bool:
        return bool(self._call.cancelled())

    def done(self) -> bool:
        return bool(self._call.done())

    def time_remaining(self) -> float | None:
        remaining: float | None = self._call.time_remaining()
        return remaining

    def cancel(self) -> bool:
        return bool(self._call.cancel())

    def add_done_callback(self, callback: DoneCallback) -> None:
        self._call.add_done_callback(instead(callback, self))

    async def initial_metadata(self) -> Metadata:
        metadata: Metadata = await self._call.initial_metadata()
        return metadata

    async def trailing_metadata(self) -> Metadata:
        metadata: Metadata = await self._call.trailing_metadata()
        return metadata

    async def code(self) -> StatusCode:
        code: StatusCode = await self._call.code()
        return code

    async def details(self) -> str:
        return str(await self._call.details())

    async def debug_error_string(self) -> str:
        return str(await self._call.debug_error_string())

    async def wait_for_connection(self) -> None:
        await self._call.wait_for_connection()

    async def write(self, request: object) -> None:
        await self._call.write(request)

    async def done_writing(self) -> None:
        await self._call.done_writing()


def instead(callback: DoneCallback, call: object) -> DoneCallback:
    """Return what tells ``callback`` of ``call``, in place of the one behind it."""

    def tell(_: object) -> None:
        callback(call)

    return tell
