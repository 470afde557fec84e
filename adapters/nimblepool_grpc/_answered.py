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

from ._callback import tell
from ._errors import RpcEnded
from ._forwarding import ForwardingCall
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
        tell(callback, self)

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

    async def write(self, request: object) -> None:  # noqa: ARG002 - it may be a secret
        raise RpcEnded("an interceptor has answered the call: nothing more is sent")

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
class StreamedAnswer(ForwardingCall, AbstractUnaryStreamCall[Any, R], AbstractStreamStreamCall[Any, R]):
    """The iterator of responses with which an interceptor answered; the rest is that of the call behind it.

    Args:
        call: that call; a `Settled` one if the interceptor asked for none.
        responses: the responses.
    """

    def __init__(self, call: Any, responses: AsyncIterable[R]) -> None:  # noqa: ANN401 - of any kind
        self._inner = call
        self._responses = responses
        self._reading: AsyncIterator[R] | None = None

    def __aiter__(self) -> AsyncIterator[R]:
        if self._reading is None:
            self._reading = aiter(self._responses)
        return self._reading

    async def read(self) -> R | EOFType:
        return await anext(aiter(self), EOF)

    async def write(self, request: object) -> None:
        await self._inner.write(request)

    async def done_writing(self) -> None:
        await self._inner.done_writing()
