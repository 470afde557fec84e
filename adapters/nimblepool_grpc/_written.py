"""Requests that are written by hand, as the iterator that interceptors get to see."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar, final

import trio
from grpc import StatusCode
from grpc.aio import AioRpcError, UsageError

from ._errors import RpcCancelled, RpcEnded
from ._forwarding import when_it_ends
from ._types import Q

if TYPE_CHECKING:
    from collections.abc import Generator

W = TypeVar("W")


@final
class Written(Generic[Q]):
    """A channel without room: what is written is on its way when `write` returns.

    It does not refer to the call, so that one can be noticed which nobody has any more.

    Invariants:
        _serves if and only if the end of the call that takes the requests closes them
        _is_busy if and only if a task is in `write` or `done_writing`
    """

    def __init__(self) -> None:
        self._send, self.requests = trio.open_memory_channel[Q](0)
        self._serves = False
        self._is_busy = False

    @staticmethod
    def of(written: Written[W] | None) -> Written[W]:
        """Return ``written``, or raise `grpc.aio.UsageError` because there is an iterator of requests."""
        if written is None:
            raise UsageError("this call was given an iterator of requests: nothing can be written besides")
        return written

    async def write(self, call: Any, request: Q) -> None:  # noqa: ANN401 - of any kind
        """Hand ``request`` to ``call``; raises what `StreamStreamCall.write` does."""
        with self._alone(call):
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
        with self._alone(call):
            await self._serve(call)
            self._send.close()

    @contextmanager
    def _alone(self, call: Any) -> Generator[None]:  # noqa: ANN401
        """Let one task write at a time; if it is cancelled, so is ``call``."""
        if self._is_busy:
            raise trio.BusyResourceError("another task is already sending")
        self._is_busy = True
        try:
            yield
        except trio.Cancelled:
            call.cancel()
            raise
        finally:
            self._is_busy = False

    async def _serve(self, call: Any) -> None:  # noqa: ANN401
        """See that ``call`` has begun, for only then it takes requests."""
        if not self._serves:
            await call.wait_for_connection()
            self._serves = True
            when_it_ends(call, self.requests.close)


async def _raise_if_failed(call: Any) -> None:  # noqa: ANN401
    code = await call.code()
    if code is StatusCode.OK:
        return
    details, more = await call.details(), await call.debug_error_string()
    if call.cancelled():
        raise RpcCancelled(details, more)
    raise AioRpcError(code, await call.initial_metadata(), await call.trailing_metadata(), details, more)
