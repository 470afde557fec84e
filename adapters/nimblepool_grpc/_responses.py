"""How calls bring their responses: one, or a stream of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpc.aio import EOF

from ._call import Call
from ._streaming import StreamingCall
from ._types import Q, R

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Self

    from ._core import CoreCall
    from ._types import EOFType

NOT_UNDERSTOOD = "A response could not be deserialised!"


class OneResponse(Call[Q, R]):
    """A call that has one response: ``await call`` returns it, to each who asks."""

    _response: R | None = None

    def __await__(self) -> Generator[Any, Any, R]:
        return self._respond().__await__()

    async def _receive(self) -> bytes | None:
        """Return the response as it came, or ``None`` if the RPC has failed."""
        raise NotImplementedError

    async def _respond(self) -> R:
        raw = await self._receive()
        if self._response is None:
            if raw is None:
                error = await self._error()
                assert error is not None, "bug: no response, and yet all is well"
                raise error
            self._response = self._method.deserialize(raw)
        return self._response


class ManyResponses(StreamingCall[Q, R]):
    """A call that has a stream of responses: ``async for response in call``, or `read`.

    The core holds only as many of them as the connection's window allows until they are read. Cancelling a task that
    reads cancels the call.
    """

    async def read(self) -> R | EOFType:
        """Return the next response, or ``grpc.aio.EOF`` when there is none any more and all is well.

        Raises:
            grpc.aio.AioRpcError: the call has failed.
            trio.BusyResourceError: another task is reading.
            Exception: the response cannot be deserialised, for which the call is cancelled.
        """
        core = self._core or await self._began()
        raw = await core.receive()
        if raw is not None:
            return self._deserialized(raw, core)
        await self._raise_if_failed()
        return EOF

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R:
        core = self._core or await self._begin_here()
        raw = await core.receive()
        if raw is not None:
            return self._deserialized(raw, core)
        await self._raise_if_failed()
        raise StopAsyncIteration

    def _deserialized(self, raw: bytes, core: CoreCall) -> R:
        try:
            return self._method.deserialize(raw)
        except BaseException:
            core.cancel(NOT_UNDERSTOOD)  # whoever loops is out of the loop
            raise
