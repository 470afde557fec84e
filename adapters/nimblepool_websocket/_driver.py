"""The driver, or what to do if it is missing or too old to know trio."""

try:
    from websockets.exceptions import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK
    from websockets.trio.client import ClientConnection, connect
except ImportError as error:
    raise ImportError(
        f"this needs websockets 17.4 or newer: pip install 'nimblepool[websocket]' ({error})", name=error.name
    ) from error

__all__ = ["ClientConnection", "ConnectionClosed", "ConnectionClosedError", "ConnectionClosedOK", "connect"]
