"""WebSocket connections for trio, pooled: ``async with open_websockets("wss://host/path") as sockets``."""

from ._correlate import Correlate, Correlator
from ._errors import (
    JSONRPCError,
    RequestLost,
    RequestTimeout,
    SendInterrupted,
    SlowSubscriber,
    SocketClosed,
    SocketClosedError,
    SocketClosedOK,
)
from ._jsonrpc import JSONRPC
from ._keyed import KeyedWebSockets, open_keyed_websockets
from ._leased import LeasedSocket
from ._options import ConnectOptions
from ._socket import Socket
from ._subscription import Overflow, Subscription
from ._websockets import WebSockets, open_websockets
from ._worker import WebSocketWorker

__all__ = [
    "JSONRPC",
    "ConnectOptions",
    "Correlate",
    "Correlator",
    "JSONRPCError",
    "KeyedWebSockets",
    "LeasedSocket",
    "Overflow",
    "RequestLost",
    "RequestTimeout",
    "SendInterrupted",
    "SlowSubscriber",
    "Socket",
    "SocketClosed",
    "SocketClosedError",
    "SocketClosedOK",
    "Subscription",
    "WebSocketWorker",
    "WebSockets",
    "open_keyed_websockets",
    "open_websockets",
]
