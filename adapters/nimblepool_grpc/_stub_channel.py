"""What generated stubs expect of a channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from grpc.aio import Channel

from ._method import Method
from ._multi_callable import (
    StreamStreamMultiCallable,
    StreamUnaryMultiCallable,
    UnaryStreamMultiCallable,
    UnaryUnaryMultiCallable,
)

if TYPE_CHECKING:
    from ._interceptors import Interceptors
    from ._route import Route
    from ._types import Deserialize, Serialize


class StubChannel(Channel):
    """Makes the callables of a stub, which can be done before the channel is open."""

    def __init__(self, route: Route, interceptors: Interceptors) -> None:
        self._route = route
        self._interceptors = interceptors

    def unary_unary(
        self,
        method: str,
        request_serializer: Serialize[Any] | None = None,
        response_deserializer: Deserialize[Any] | None = None,
        _registered_method: bool | None = False,
    ) -> UnaryUnaryMultiCallable[Any, Any]:
        """Return what makes the calls of a method with one request and one response."""
        return UnaryUnaryMultiCallable(
            Method(method, self._route, request_serializer, response_deserializer), self._interceptors.unary_unary
        )

    def unary_stream(
        self,
        method: str,
        request_serializer: Serialize[Any] | None = None,
        response_deserializer: Deserialize[Any] | None = None,
        _registered_method: bool | None = False,
    ) -> UnaryStreamMultiCallable[Any, Any]:
        """Return what makes the calls of a method with one request and a stream of responses."""
        return UnaryStreamMultiCallable(
            Method(method, self._route, request_serializer, response_deserializer), self._interceptors.unary_stream
        )

    def stream_unary(
        self,
        method: str,
        request_serializer: Serialize[Any] | None = None,
        response_deserializer: Deserialize[Any] | None = None,
        _registered_method: bool | None = False,
    ) -> StreamUnaryMultiCallable[Any, Any]:
        """Return what makes the calls of a method with a stream of requests and one response."""
        return StreamUnaryMultiCallable(
            Method(method, self._route, request_serializer, response_deserializer), self._interceptors.stream_unary
        )

    def stream_stream(
        self,
        method: str,
        request_serializer: Serialize[Any] | None = None,
        response_deserializer: Deserialize[Any] | None = None,
        _registered_method: bool | None = False,
    ) -> StreamStreamMultiCallable[Any, Any]:
        """Return what makes the calls of a method with streams both ways."""
        return StreamStreamMultiCallable(
            Method(method, self._route, request_serializer, response_deserializer), self._interceptors.stream_stream
        )
