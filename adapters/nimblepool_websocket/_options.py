"""How a connection is opened: the driver's options, checked before the first attempt."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, TypedDict

from websockets.exceptions import InvalidProxy, InvalidURI
from websockets.proxy import parse_proxy
from websockets.trio.client import ClientConnection, connect
from websockets.uri import parse_uri

from ._watched import watched

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence
    from typing import Literal

    from websockets.datastructures import HeadersLike
    from websockets.extensions.base import ClientExtensionFactory
    from websockets.typing import LoggerLike


class ConnectOptions(TypedDict, total=False):
    """The options of `websockets.trio.client.connect`; times are seconds, ``None`` means off.

    They mean what they mean there, and have the same defaults but for those named here.
    """

    ssl: ssl.SSLContext | None
    server_hostname: str | None
    origin: str | None
    extensions: Sequence[ClientExtensionFactory] | None
    subprotocols: Sequence[str] | None
    compression: str | None
    additional_headers: HeadersLike | None
    user_agent_header: str | None
    proxy: str | Literal[True] | None
    """``True``, the default, takes the proxy from the environment; ``None`` uses none."""
    proxy_ssl: ssl.SSLContext | None
    proxy_server_hostname: str | None
    open_timeout: float | None
    """Default 10."""
    ping_interval: float | None
    """Seconds between two keep-alive pings; default 10 (the driver's: 20)."""
    ping_timeout: float | None
    """Seconds to wait for a pong; then the socket is lost; default 10 (the driver's: 20)."""
    close_timeout: float | None
    """Seconds for the closing handshake; default 2 (the driver's: 10)."""
    max_size: int | tuple[int | None, int | None] | None
    """Largest message in bytes; default 1 MiB. A larger one closes the socket with 1009."""
    max_queue: int | tuple[int | None, int | None] | None
    """Frames that are buffered before reading pauses; default 16."""
    logger: LoggerLike | None
    create_connection: type[ClientConnection] | None
    host: str | None
    """Where to connect in place of the URI's host."""
    port: int | None
    """Where to connect in place of the URI's port."""
    path: str | None
    """A unix socket to connect to; the URI still gives the ``Host`` header and the path of the request."""
    happy_eyeballs_delay: float | None
    local_address: str | None


DEFAULTS: Final[ConnectOptions] = {"ping_interval": 10.0, "ping_timeout": 10.0, "close_timeout": 2.0}
"""A peer that has gone silent is found within 22 seconds in place of 50."""
ADDRESS: Final = ("host", "port", "happy_eyeballs_delay", "local_address")
"""What is passed on to trio, where ``None`` is not always the default."""
NOT_OURS: Final = {
    "stream": "a stream makes one connection, and a pool makes many: use host, port or path",
    "process_exception": "the pool decides when to try again: see backoff, breaker and on_open_failure of the pool",
    "reconnect_delays": "the pool decides when to try again: see backoff of the pool",
}


class Dialler:
    """Makes the driver's connector, a new one for each connection.

    Raises:
        ValueError: the URI or an option has a value that is not allowed; the text quotes neither URI nor proxy.
        TypeError: an option does not exist.
    """

    def __init__(self, uri: str, options: ConnectOptions) -> None:
        _check_names(options)
        given: dict[str, Any] = {**DEFAULTS, **options}
        given["create_connection"] = watched(given.get("create_connection") or ClientConnection)
        path = given.pop("path", None)
        if path is not None:
            given |= {"unix": True, "path": path}
        self._uri = uri
        absent = {name for name in ADDRESS if given.get(name) is None}
        self._options: dict[str, Any] = {name: value for name, value in given.items() if name not in absent}
        self.where = _place(uri)
        self.close_timeout: float | None = given["close_timeout"]
        _check_proxy(given.get("proxy"))
        # Not entered: the call checks the options.
        self.connector()

    def connector(self) -> connect:
        """Return what opens one connection."""
        options: Any = self._options
        return connect(self._uri, **options)


def _check_names(options: ConnectOptions) -> None:
    known = ConnectOptions.__annotations__
    for name in options:
        if name in NOT_OURS:
            raise TypeError(f"{name}: {NOT_OURS[name]}")
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
            raise TypeError(f"a WebSocketWorker has no option {name!r}; {hint}")


def _place(uri: str) -> str:
    """Return the URI without what may be secret: user, password and query."""
    try:
        parsed = parse_uri(uri)
    except InvalidURI as error:
        raise ValueError(f"uri must be like ws://host:port/path or wss://host/path: {error.msg}") from None
    return f"{'wss' if parsed.secure else 'ws'}://{parsed.host}:{parsed.port}{parsed.path}"


def _check_proxy(proxy: object) -> None:
    if isinstance(proxy, str):
        try:
            parse_proxy(proxy)
        except InvalidProxy as error:
            raise ValueError(f"proxy must be like http://host:port or socks5h://host:port: {error.msg}") from None
