"""gRPC on trio, over pooled channels: ``async with PooledChannel("host:port") as channel: GreeterStub(channel)``."""

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
