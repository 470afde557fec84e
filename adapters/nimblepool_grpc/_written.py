"""Requests that are written by hand, as the iterator that interceptors get to see."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, final

import trio
from grpc import StatusCode
from grpc.aio import AioRpcError, UsageError

from ._errors import RpcEnded
from ._types import Q

W = TypeVar("W")


@final
class Written(Generic[Q]):
    """A channel without room: what is written is on its way when `write` returns.

    Invariant: _call is not None once the call is known that takes the requests; its end closes requests
    """

    def __init__(self) -> None:
        self._send, self.requests = trio.open_memory_channel[Q](0)
        self._call: Any = None

    @staticmethod
    def of(written: Written[W] | None) -> Written[W]:
        """Return ``written``, or raise `grpc.aio.UsageError` because there is an iterator of requests."""
        if written is None:
            raise UsageError("this call was given an iterator of requests: nothing can be written besides")
        return written

    async def write(self, call: Any, request: Q) -> None:  # noqa: ANN401 - of any kind
        """Hand ``request`` to ``call``."""
        await self._serve(call)
        try:
            await self._send.send(request)
        except trio.ClosedResourceError:
            raise RpcEnded("nothing can be written after done_writing()") from None
        except trio.BrokenResourceError:
            await _raise_if_failed(call)
            raise RpcEnded("the server has ended the call, and reads no more requests") from None

    async def done_writing(self, call: Any) -> None:  # noqa: ANN401
        """Tell ``call`` that no request follows."""
        await self._serve(call)
        self._send.close()

    async def _serve(self, call: Any) -> None:  # noqa: ANN401
        """See that ``call`` has begun, for only then it takes requests."""
        if self._call is None:
            self._call = call
            call.add_done_callback(self._close)
            await call.wait_for_connection()

    def _close(self, _: object) -> None:
        self.requests.close()


async def _raise_if_failed(call: Any) -> None:  # noqa: ANN401
    code = await call.code()
    if code is not StatusCode.OK:
        raise AioRpcError(
            code,
            await call.initial_metadata(),
            await call.trailing_metadata(),
            await call.details(),
            await call.debug_error_string(),
        )
