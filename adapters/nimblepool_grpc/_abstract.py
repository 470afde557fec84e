"""grpc.aio's abstract callables, all of them with the type parameters that two lack in old releases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpc.aio import UnaryStreamMultiCallable as AbstractUnaryStream
from grpc.aio import UnaryUnaryMultiCallable as AbstractUnaryUnary

if TYPE_CHECKING:
    from grpc.aio import StreamStreamMultiCallable as AbstractStreamStream
    from grpc.aio import StreamUnaryMultiCallable as AbstractStreamUnary
else:
    from grpc import aio

    class _Subscriptable:
        def __class_getitem__(cls, _: object) -> type:
            return cls

    class AbstractStreamStream(_Subscriptable, aio.StreamStreamMultiCallable):
        """What `grpc.aio.StreamStreamMultiCallable` is, whatever the release."""

    class AbstractStreamUnary(_Subscriptable, aio.StreamUnaryMultiCallable):
        """What `grpc.aio.StreamUnaryMultiCallable` is, whatever the release."""


__all__ = ["AbstractStreamStream", "AbstractStreamUnary", "AbstractUnaryStream", "AbstractUnaryUnary"]
