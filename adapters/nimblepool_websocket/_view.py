"""What the driver's connection tells of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from websockets.http11 import Request, Response
    from websockets.protocol import State
    from websockets.trio.client import ClientConnection
    from websockets.typing import Subprotocol


class ConnectionView:
    """The properties of the driver's connection, taken from `raw`."""

    __slots__ = ()

    @property
    def raw(self) -> ClientConnection:
        """The driver's connection: what is done to it the pool does not notice."""
        raise NotImplementedError

    @property
    def subprotocol(self) -> Subprotocol | None:
        """What was negotiated, or ``None``."""
        return self.raw.subprotocol

    @property
    def request(self) -> Request | None:
        """The opening handshake's request."""
        return self.raw.request

    @property
    def response(self) -> Response | None:
        """The opening handshake's response."""
        return self.raw.response

    @property
    def state(self) -> State:
        """The driver's state of the connection."""
        return self.raw.state

    @property
    def latency(self) -> float:
        """Seconds that the last ping took there and back; 0.0 before the first."""
        return self.raw.latency

    @property
    def close_code(self) -> int | None:
        """The code of the server's close frame, 1005 or 1006 where there was none; ``None`` before the end."""
        return self.raw.close_code

    @property
    def close_reason(self) -> str | None:
        """The reason in the server's close frame; ``None`` before the end."""
        return self.raw.close_reason

    @property
    def local_address(self) -> Any:  # noqa: ANN401 - the driver's own
        """The socket's own address."""
        return self.raw.local_address

    @property
    def remote_address(self) -> Any:  # noqa: ANN401 - the driver's own
        """The server's address."""
        return self.raw.remote_address
