"""gRPC on trio, over pooled channels: ``async with PooledChannel("host:port") as channel: GreeterStub(channel)``.

A stub asks a channel for a callable for each method, and that makes the calls (`_multi_callable`). A call begins when
it is first used, in the task that does (`_call`): it gets a channel from the pool, or from a lease (`_route`), and has
the core carry out one RPC on it (`_core`, the only package that touches what is private to grpcio). Interceptors stand
between a callable and its calls (`_intercepted`). ``docs/architecture.md`` has a picture.
"""

from . import _core as _core  # first: it says what to do where grpcio is missing, or does not fit
from ._errors import (
    ChannelFailed,
    RpcCancelled,
    RpcCheckoutTimeout,
    RpcEnded,
    RpcLeaseExpired,
    RpcLeaseRevoked,
    RpcOverloaded,
    RpcPoolClosed,
    RpcUnavailable,
)
from ._leased_channel import LeasedChannel
from ._pooled_channel import PooledChannel
from ._stream_stream import StreamStreamCall
from ._stream_unary import StreamUnaryCall
from ._unary_stream import UnaryStreamCall
from ._unary_unary import UnaryUnaryCall
from ._worker import ChannelWorker

__all__ = [
    "ChannelFailed",
    "ChannelWorker",
    "LeasedChannel",
    "PooledChannel",
    "RpcCancelled",
    "RpcCheckoutTimeout",
    "RpcEnded",
    "RpcLeaseExpired",
    "RpcLeaseRevoked",
    "RpcOverloaded",
    "RpcPoolClosed",
    "RpcUnavailable",
    "StreamStreamCall",
    "StreamUnaryCall",
    "UnaryStreamCall",
    "UnaryUnaryCall",
]
