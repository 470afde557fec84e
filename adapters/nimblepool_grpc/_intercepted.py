"""Calls behind interceptors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, final

from grpc.aio import AioRpcError
from grpc.aio import StreamStreamCall as AbstractStreamStreamCall
from grpc.aio import StreamUnaryCall as AbstractStreamUnaryCall
from grpc.aio import UnaryStreamCall as AbstractUnaryStreamCall
from grpc.aio import UnaryUnaryCall as AbstractUnaryUnaryCall

from ._answered import Answer, Settled, StreamedAnswer
from ._call import warn_never_used
from ._callback import tell
from ._chain import details_of, intercepted, terms_of
from ._errors import CANCELLED_HERE, RpcCancelled
from ._forwarding import ForwardingCall
from ._once import Once
from ._stream_stream import StreamStreamCall
from ._stream_unary import StreamUnaryCall
from ._types import Q, R
from ._unary_stream import UnaryStreamCall
from ._unary_unary import UnaryUnaryCall
from ._written import Written

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator
    from types import TracebackType
    from typing import Self

    from grpc.aio import ClientCallDetails

    from ._interceptors import Intercept
    from ._method import Method
    from ._terms import Terms
    from ._types import DoneCallback, EOFType, Requests


class InterceptedCall(ForwardingCall, Generic[Q, R]):
    """A call behind interceptors. They run when it is first used, in the task that does; then it is what they answer.

    Invariants:
        _inner is not None once they have answered
        _callbacks is empty from then on
    """

    _advice = "await it"
    _callbacks: tuple[DoneCallback, ...] = ()

    def __init__(self, method: Method[Q, R], terms: Terms, request: object, intercepts: tuple[Intercept, ...]) -> None:
        self._method = method
        self._terms = terms
        self._request = request
        self._intercepts = intercepts
        self._once: Once[Any] = Once()

    def done(self) -> bool:
        """Whether it has ended."""
        return self._once.error is not None if self._inner is None else super().done()

    def cancelled(self) -> bool:
        """Whether it was ended from here."""
        return isinstance(self._once.error, RpcCancelled) if self._inner is None else super().cancelled()

    def cancel(self) -> bool:
        """End it, and the interceptors, if they are at it; tell whether it was still going on."""
        if self._inner is not None:
            return super().cancel()
        if self.done():
            return False
        self._once.fail(RpcCancelled(CANCELLED_HERE))
        self._tell_that_it_failed()
        return True

    def time_remaining(self) -> float | None:
        """Seconds until its deadline, or ``None`` if it has none."""
        return self._terms.timeout if self._inner is None else super().time_remaining()

    def add_done_callback(self, callback: DoneCallback) -> None:
        """Call ``callback(call)`` once when it ends; at once if it has ended."""
        if self._inner is not None:
            super().add_done_callback(callback)
        elif self.done():
            tell(callback, self)
        else:
            self._callbacks += (callback,)

    def __del__(self) -> None:
        if not self._once.has_begun:
            warn_never_used(self, self._advice)

    def __repr__(self) -> str:
        state = "ended" if self.done() else "not begun" if not self._once.has_begun else "running"
        return f"<{type(self).__name__} of {self._method.name.decode()}, {state}>"

    # For the kinds of call

    def _make(self, details: ClientCallDetails, request: Any) -> Any:  # noqa: ANN401 - of any kind
        """Make the call behind the interceptors."""
        raise NotImplementedError

    def _make_quietly(self, details: ClientCallDetails, request: Any) -> Any:  # noqa: ANN401
        """Do so; what an interceptor has asked for and does not use is no mistake of the client's."""
        call = self._make(details, request)
        call.warns = False
        return call

    def _adapt(self, answer: Any, given: Any) -> Any:  # noqa: ANN401
        """Make a call of an interceptor's answer."""
        raise NotImplementedError

    def _renamed(self, details: ClientCallDetails) -> Method[Q, R]:
        return self._method.renamed(details.method)

    async def _behind(self) -> Any:  # noqa: ANN401
        """Return the call that the interceptors answer with."""
        try:
            return await self._once.get(self._run)
        except BaseException:
            self._tell_that_it_failed()
            raise

    async def _run(self) -> Any:  # noqa: ANN401
        details = details_of(self._method, self._terms)
        inner = await intercepted(self._intercepts, self._make_quietly, self._adapt, details, self._request)
        self._inner = inner
        callbacks, self._callbacks = self._callbacks, ()
        for callback in callbacks:
            self.add_done_callback(callback)
        return inner

    async def _ask(self, name: str) -> Any:  # noqa: ANN401
        try:
            inner = await self._behind()
        except AioRpcError as error:
            return getattr(error, name)()
        return await getattr(inner, name)()

    def _tell_that_it_failed(self) -> None:
        callbacks, self._callbacks = self._callbacks, ()
        for callback in callbacks:
            tell(callback, self)


class _OneResponse(InterceptedCall[Q, R]):
    def __await__(self) -> Generator[Any, Any, R]:
        return self._respond().__await__()

    async def _respond(self) -> R:
        response: R = await (await self._behind())
        return response


class _Streaming(InterceptedCall[Q, R]):
    _advice = "iterate over it, or enter it"

    async def __aenter__(self) -> Self:
        inner = await self._behind()
        if hasattr(inner, "__aenter__"):
            await inner.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        inner = self._inner
        if hasattr(inner, "__aexit__"):
            await inner.__aexit__(exc_type, exc, traceback)
        else:
            self.cancel()


class _ManyResponses(_Streaming[Q, R]):
    _reading: AsyncIterator[R] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> R:
        if self._reading is None:
            self._reading = aiter(await self._behind())
        return await anext(self._reading)

    async def read(self) -> R | EOFType:
        """Return the next response, or ``grpc.aio.EOF`` when there is none any more and all is well."""
        response: R | EOFType = await (await self._behind()).read()
        return response

    def _adapt(self, answer: Any, given: Any) -> Any:  # noqa: ANN401
        if _is_a(answer, AbstractUnaryStreamCall, AbstractStreamStreamCall):
            return answer
        return StreamedAnswer(Settled() if given is None else given, answer)


class _ManyRequests(_Streaming[Q, R]):
    """What is written goes through an iterator, which the interceptors get to see.

    Invariant: _written is not None if and only if the requests are written by hand
    """

    def __init__(
        self, method: Method[Q, R], terms: Terms, requests: Requests[Q] | None, intercepts: tuple[Intercept, ...]
    ) -> None:
        self._written: Written[Q] | None = Written() if requests is None else None
        super().__init__(method, terms, requests if self._written is None else self._written.requests, intercepts)

    async def write(self, request: Q) -> None:
        """Send a request, waiting until the call takes it; see `StreamStreamCall.write`."""
        await Written.of(self._written).write(await self._behind(), request)

    async def done_writing(self) -> None:
        """Tell the server that no request follows; see `StreamStreamCall.done_writing`."""
        await Written.of(self._written).done_writing(await self._behind())


@final
class InterceptedUnaryUnaryCall(_OneResponse[Q, R], AbstractUnaryUnaryCall[Q, R]):
    """A `UnaryUnaryCall` behind interceptors."""

    def _make(self, details: ClientCallDetails, request: Q) -> UnaryUnaryCall[Q, R]:
        return UnaryUnaryCall(self._renamed(details), terms_of(details), request)

    def _adapt(self, answer: Any, given: Any) -> Any:  # noqa: ANN401, ARG002
        return answer if _is_a(answer, AbstractUnaryUnaryCall) else Answer(answer)


@final
class InterceptedUnaryStreamCall(_ManyResponses[Q, R], AbstractUnaryStreamCall[Q, R]):
    """A `UnaryStreamCall` behind interceptors."""

    def _make(self, details: ClientCallDetails, request: Q) -> UnaryStreamCall[Q, R]:
        return UnaryStreamCall(self._renamed(details), terms_of(details), request)


@final
class InterceptedStreamUnaryCall(_OneResponse[Q, R], _ManyRequests[Q, R], AbstractStreamUnaryCall[Q, R]):
    """A `StreamUnaryCall` behind interceptors."""

    def _make(self, details: ClientCallDetails, request: Requests[Q]) -> StreamUnaryCall[Q, R]:
        return StreamUnaryCall(self._renamed(details), terms_of(details), request)

    def _adapt(self, answer: Any, given: Any) -> Any:  # noqa: ANN401, ARG002
        return answer if _is_a(answer, AbstractStreamUnaryCall) else Answer(answer)


@final
class InterceptedStreamStreamCall(_ManyRequests[Q, R], _ManyResponses[Q, R], AbstractStreamStreamCall[Q, R]):
    """A `StreamStreamCall` behind interceptors."""

    def _make(self, details: ClientCallDetails, request: Requests[Q]) -> StreamStreamCall[Q, R]:
        return StreamStreamCall(self._renamed(details), terms_of(details), request)


def _is_a(answer: object, *kinds: type) -> bool:
    return isinstance(answer, kinds)
