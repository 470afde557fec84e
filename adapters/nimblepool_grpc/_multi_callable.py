"""What a stub keeps for each method: called with a request, they make the calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic

from ._abstract import AbstractStreamStream, AbstractStreamUnary, AbstractUnaryStream, AbstractUnaryUnary
from ._check import check_requests
from ._intercepted import (
    InterceptedStreamStreamCall,
    InterceptedStreamUnaryCall,
    InterceptedUnaryStreamCall,
    InterceptedUnaryUnaryCall,
)
from ._stream_stream import StreamStreamCall
from ._stream_unary import StreamUnaryCall
from ._terms import terms_from
from ._types import Q, R
from ._unary_stream import UnaryStreamCall
from ._unary_unary import UnaryUnaryCall

if TYPE_CHECKING:
    from grpc import CallCredentials, Compression

    from ._interceptors import Intercept
    from ._method import Method
    from ._types import MetadataLike, Requests


class _MultiCallable(Generic[Q, R]):
    """A method and the interceptors before it."""

    def __init__(self, method: Method[Q, R], intercepts: tuple[Intercept, ...]) -> None:
        self._method = method
        self._intercepts = intercepts

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._method.name.decode()}>"


class UnaryUnaryMultiCallable(_MultiCallable[Q, R], AbstractUnaryUnary[Q, R]):
    """Makes calls with one request and one response."""

    def __call__(
        self,
        request: Q,
        *,
        timeout: float | None = None,
        metadata: MetadataLike | None = None,
        credentials: CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: Compression | None = None,
    ) -> UnaryUnaryCall[Q, R] | InterceptedUnaryUnaryCall[Q, R]:
        """Return a call, which begins when it is first used. The other three kinds take the same arguments.

        Args:
            request: the message.
            timeout: seconds that the call may take, the wait for a channel included; ``None`` for no limit of its own:
                then it may wait for a channel as long as ``checkout_timeout`` says. Trio's deadline holds besides.
            metadata: what to send along, as pairs or as `grpc.aio.Metadata`.
            credentials: what proves the right to this call; only on channels with credentials.
            wait_for_ready: whether to wait, as long as it may take, where no server can be reached.
            compression: how to compress requests, in place of how the channel does.

        Raises:
            TypeError: an argument is of the wrong type.
            ValueError: an argument has a value that is not allowed.
        """
        terms = terms_from(timeout, metadata, credentials, wait_for_ready, compression)
        if self._intercepts:
            return InterceptedUnaryUnaryCall(self._method, terms, request, self._intercepts)
        return UnaryUnaryCall(self._method, terms, request)


class UnaryStreamMultiCallable(_MultiCallable[Q, R], AbstractUnaryStream[Q, R]):
    """Makes calls with one request and a stream of responses."""

    def __call__(
        self,
        request: Q,
        *,
        timeout: float | None = None,
        metadata: MetadataLike | None = None,
        credentials: CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: Compression | None = None,
    ) -> UnaryStreamCall[Q, R] | InterceptedUnaryStreamCall[Q, R]:
        """Return a call; see `UnaryUnaryMultiCallable`."""
        terms = terms_from(timeout, metadata, credentials, wait_for_ready, compression)
        if self._intercepts:
            return InterceptedUnaryStreamCall(self._method, terms, request, self._intercepts)
        return UnaryStreamCall(self._method, terms, request)


class StreamUnaryMultiCallable(_MultiCallable[Q, R], AbstractStreamUnary[Q, R]):
    """Makes calls with a stream of requests and one response."""

    def __call__(  # noqa: PLR0917 - grpc.aio's signature
        self,
        request_iterator: Requests[Q] | None = None,
        timeout: float | None = None,
        metadata: MetadataLike | None = None,
        credentials: CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: Compression | None = None,
    ) -> StreamUnaryCall[Q, R] | InterceptedStreamUnaryCall[Q, R]:
        """Return a call; see `UnaryUnaryMultiCallable`. Without an iterator its requests are written by hand."""
        terms = terms_from(timeout, metadata, credentials, wait_for_ready, compression)
        check_requests(request_iterator)
        if self._intercepts:
            return InterceptedStreamUnaryCall(self._method, terms, request_iterator, self._intercepts)
        return StreamUnaryCall(self._method, terms, request_iterator)


class StreamStreamMultiCallable(_MultiCallable[Q, R], AbstractStreamStream[Q, R]):
    """Makes calls with streams both ways."""

    def __call__(  # noqa: PLR0917 - grpc.aio's signature
        self,
        request_iterator: Requests[Q] | None = None,
        timeout: float | None = None,
        metadata: MetadataLike | None = None,
        credentials: CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: Compression | None = None,
    ) -> StreamStreamCall[Q, R] | InterceptedStreamStreamCall[Q, R]:
        """Return a call; see `StreamUnaryMultiCallable`."""
        terms = terms_from(timeout, metadata, credentials, wait_for_ready, compression)
        check_requests(request_iterator)
        if self._intercepts:
            return InterceptedStreamStreamCall(self._method, terms, request_iterator, self._intercepts)
        return StreamStreamCall(self._method, terms, request_iterator)
