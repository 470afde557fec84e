"""Calls that have a stream of responses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpc.aio import EOF

from ._streaming import StreamingCall
from ._types import Q, R

if TYPE_CHECKING:
    from typing import Self

    from ._types import EOFType


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
        """
        core = self._core or await self._began()
        raw = await core.receive()
        if raw is not None:
            return self._method.deserialize(raw)
        await self._raise_if_failed()
        return EOF

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R:
        core = self._core or await self._begin_here()
        raw = await core.receive()
        if raw is not None:
            return self._method.deserialize(raw)
        await self._raise_if_failed()
        raise StopAsyncIteration
