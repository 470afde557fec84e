"""Calls that have a stream of requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpc.aio import UsageError

from ._core import CallEnded
from ._errors import RpcEnded
from ._feeder import Feeder
from ._streaming import StreamingCall
from ._types import Q, R

if TYPE_CHECKING:
    from types import TracebackType

    from ._core import CoreCall
    from ._method import Method
    from ._terms import Terms
    from ._types import Requests


class ManyRequests(StreamingCall[Q, R]):
    """A call that has a stream of requests: from an iterator that was passed with it, or else from `write`.

    An iterator, of either kind, is gone through by a task of the channel's, with the context variables of the task that
    begins the call; a generator is closed when the call ends. What it raises cancels the call, and comes out of
    whatever waits for a response; what is no `Exception` ends the channel.

    Invariants:
        _feeder is not None if and only if the RPC has begun and there is an iterator
        _half_closed implies that there is none
    """

    _feeder: Feeder[Q] | None = None
    _half_closed = False

    def __init__(self, method: Method[Q, R], terms: Terms, requests: Requests[Q] | None) -> None:
        super().__init__(method, terms)
        self._requests = requests

    async def write(self, request: Q) -> None:
        """Send a request, waiting until the core takes it: when the server is slow, that is when it reads.

        Raises:
            grpc.aio.AioRpcError: the call has failed.
            RpcEnded: it has ended well, or `done_writing` was called.
            trio.BusyResourceError: another task is writing.
            grpc.aio.UsageError: there is an iterator of requests.
        """
        self._check_style()
        if self._half_closed:
            raise RpcEnded("nothing can be written after done_writing()")
        message = self._method.serialize(request)
        core = self._core or await self._began()
        try:
            await core.send(message)
        except CallEnded:
            await self._raise_if_failed()
            raise RpcEnded("the server has ended the call, and reads no more requests") from None

    async def done_writing(self) -> None:
        """Tell the server that no request follows. Idempotent, and harmless when the call has ended.

        Raises:
            grpc.aio.UsageError: there is an iterator of requests.
        """
        self._check_style()
        core = self._core or await self._began()
        self._half_closed = True
        await core.half_close()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await super().__aexit__(exc_type, exc, traceback)
        if self._feeder is not None and exc is None:
            self._feeder.raise_error()

    def _check_style(self) -> None:
        if self._requests is not None:
            raise UsageError("this call was given an iterator of requests: nothing can be written besides")

    def _feed(self, core: CoreCall) -> None:
        """Begin to go through the iterator, if there is one."""
        if self._requests is not None:
            self._feeder = Feeder(core, self._requests, self._method.serialize)
            self._method.route.start_soon(self._feeder.run)

    async def _error(self) -> BaseException | None:
        if self._feeder is not None:
            self._feeder.raise_error()
        error = await super()._error()
        if error is not None and self._feeder is not None:
            error.__cause__ = self._feeder.error
        return error
