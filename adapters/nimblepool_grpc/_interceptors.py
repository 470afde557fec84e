"""The interceptors of a channel, by the kind of call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeAlias, final

from grpc.aio import (
    ClientInterceptor,
    StreamStreamClientInterceptor,
    StreamUnaryClientInterceptor,
    UnaryStreamClientInterceptor,
    UnaryUnaryClientInterceptor,
)

Intercept: TypeAlias = Callable[[Any, Any, Any], Awaitable[Any]]
"""An interceptor's method: of the continuation, the call's details, and the request or the iterator of requests."""
KINDS: Final = (
    UnaryUnaryClientInterceptor,
    UnaryStreamClientInterceptor,
    StreamUnaryClientInterceptor,
    StreamStreamClientInterceptor,
)


@final
class Interceptors:
    """The methods that intercept each kind of call, the outermost first.

    An interceptor serves every kind whose class it inherits; with grpc.aio it serves the first of them.

    Raises:
        TypeError: an interceptor inherits none of grpc.aio's four classes.
    """

    __slots__ = ("stream_stream", "stream_unary", "unary_stream", "unary_unary")

    def __init__(self, given: Iterable[ClientInterceptor] | None) -> None:
        interceptors = () if given is None else tuple(given)
        for interceptor in interceptors:
            if not isinstance(interceptor, KINDS):
                names = ", ".join(kind.__name__ for kind in KINDS)
                raise TypeError(f"an interceptor must be one of grpc.aio's {names}, not {type(interceptor).__name__}")
        self.unary_unary: tuple[Intercept, ...] = tuple(
            each.intercept_unary_unary for each in interceptors if isinstance(each, UnaryUnaryClientInterceptor)
        )
        self.unary_stream: tuple[Intercept, ...] = tuple(
            each.intercept_unary_stream for each in interceptors if isinstance(each, UnaryStreamClientInterceptor)
        )
        self.stream_unary: tuple[Intercept, ...] = tuple(
            each.intercept_stream_unary for each in interceptors if isinstance(each, StreamUnaryClientInterceptor)
        )
        self.stream_stream: tuple[Intercept, ...] = tuple(
            each.intercept_stream_stream for each in interceptors if isinstance(each, StreamStreamClientInterceptor)
        )
