"""How a connection is opened: the driver's options."""

from __future__ import annotations

from inspect import isawaitable
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypedDict

from websockets.trio.client import ClientConnection, connect

from ._address import place_of
from ._option_checks import check_names, check_options, headers_from
from ._watched import watched
from ._wire_log import wire_log

if TYPE_CHECKING:
    import os
    import ssl
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from typing import Literal

    from websockets.datastructures import Headers, HeadersLike
    from websockets.extensions.base import ClientExtensionFactory
    from websockets.typing import LoggerLike

    UriSource: TypeAlias = str | Callable[[], str] | Callable[[], Awaitable[str]]
    HeadersSource: TypeAlias = (
        HeadersLike | Callable[[], HeadersLike | None] | Callable[[], Awaitable[HeadersLike | None]]
    )


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
    additional_headers: HeadersSource
    """Or a function, async or not, that returns them, and is asked before each opening: for tokens that expire."""
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
    """Default the driver's, with the values of headers and the URI's query left out."""
    create_connection: type[ClientConnection] | None
    host: str | None
    """Where to connect in place of the URI's host."""
    port: int | None
    """Where to connect in place of the URI's port."""
    path: str | os.PathLike[str] | None
    """A unix socket to connect to; the URI still gives the ``Host`` header and the path of the request."""
    happy_eyeballs_delay: float | None
    """Seconds between attempts at two addresses of one host; ``None``: one attempt at a time."""
    local_address: str | None


DEFAULTS: Final[ConnectOptions] = {"ping_interval": 10.0, "ping_timeout": 10.0, "close_timeout": 2.0}
"""A peer that has gone silent is found within 22 seconds in place of 50."""
UNSAID: Final = ("host", "port", "local_address")
"""What trio must not be told if it is ``None``."""
OPEN_TIMEOUT: Final = 10.0
"""The driver's."""
INIT_TIMEOUT: Final = 30.0
TERMINATE_TIMEOUT: Final = 5.0
"""What any pool has by default, as the one before."""
MARGIN: Final = 0.5
"""Seconds that the driver gets beyond ``close_timeout``, which it counts from when its close frame was written."""


UNKNOWN: Final = "wss://unknown"
"""What stands for a URI that is asked for, while the other options are checked."""


class Dial(NamedTuple):
    """What opens one connection."""

    where: str
    """The server, as it may be shown."""
    connector: connect
    close_timeout: float | None


class Dialler:
    """Makes what opens a connection, a new one for each.

    Attributes:
        where: the server that was opened last, as it may be shown; "?" if that is not known yet.

    Raises:
        ValueError: the URI or an option has a value that is not allowed; the text quotes neither URI nor proxy.
        TypeError: an option does not exist.
    """

    def __init__(self, uri: UriSource, options: ConnectOptions) -> None:
        check_names(options, list(ConnectOptions.__annotations__))
        self._uri = uri
        self._options: dict[str, Any] = {**DEFAULTS, **options}
        self.close_timeout: float | None = self._options["close_timeout"]
        self.open_timeout: float | None = self._options.get("open_timeout", OPEN_TIMEOUT)
        self.where = "?" if callable(uri) else place_of(uri)
        headers = self._options.pop("additional_headers", None)
        # Read here, since an iterator can be read only once.
        known = None if callable(headers) else headers_from(headers)
        self._headers = headers if callable(headers) else known
        self._dial(UNKNOWN if callable(uri) else uri, known)

    @property
    def pool_timeouts(self) -> Mapping[str, float]:
        """What a pool needs so that it does not cut short the driver's own timeouts."""
        opening = inf if self.open_timeout is None else self.open_timeout
        closing = TERMINATE_TIMEOUT if self.close_timeout is None else self.close_timeout + 2 * MARGIN
        return {
            # So `on_open` has as much time as it has by default.
            "init_timeout": max(INIT_TIMEOUT, opening + INIT_TIMEOUT - OPEN_TIMEOUT),
            "terminate_timeout": max(TERMINATE_TIMEOUT, closing),
        }

    async def dial(self) -> Dial:
        """Return what opens one connection, to where the URI leads now.

        Raises:
            ValueError, TypeError: a function has returned what is not allowed.
            Exception: what a function of the user's has raised.
        """
        dial = self._dial(await _asked(self._uri), headers_from(await _asked(self._headers)))
        self.where = dial.where
        return dial

    def _dial(self, uri: str, headers: Headers | None) -> Dial:
        where = place_of(uri)
        given = {**self._options, "additional_headers": headers}
        check_options(given, is_secure=where.startswith("wss:"))
        # Not entered: the call checks what is left.
        return Dial(where, connect(uri, **_for_driver(given)), self.close_timeout)


async def _asked(source: Any) -> Any:  # noqa: ANN401 - a value, or a function that returns it
    """Return the value that is meant at present."""
    value = source() if callable(source) else source
    return await value if isawaitable(value) else value


def _for_driver(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options as `connect` takes them, again and again."""
    options = {name: value for name, value in given.items() if not (name in UNSAID and value is None)}
    options["create_connection"] = watched(given.get("create_connection") or ClientConnection)
    options["logger"] = wire_log(given.get("logger"))
    path = options.pop("path", None)
    return options if path is None else {**options, "unix": True, "path": path}
