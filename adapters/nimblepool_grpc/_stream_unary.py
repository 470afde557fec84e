"""The call with a stream of requests and one response."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from grpc.aio import StreamUnaryCall as AbstractStreamUnaryCall

from ._many_requests import ManyRequests
from ._once import Once
from ._responses import OneResponse
from ._types import Q, R

if TYPE_CHECKING:
    from ._core import CoreCall
    from ._method import Method
    from ._terms import Terms
    from ._types import Requests


@final
class StreamUnaryCall(OneResponse[Q, R], ManyRequests[Q, R], AbstractStreamUnaryCall[Q, R]):
    """A call with a stream of requests and one response: ``await call`` returns that.

    Cancelling a task that awaits it cancels the call.
    """

    def __init__(self, method: Method[Q, R], terms: Terms, requests: Requests[Q] | None) -> None:
        super().__init__(method, terms, requests)
        self._received: Once[bytes | None] = Once()

    def _start(self, core: CoreCall) -> None:
        core.start_stream_unary(self._terms.metadata)
        self._feed(core)

    async def _receive(self) -> bytes | None:
        core = self._core or await self._begin_here()
        return await self._received.get(core.response)
