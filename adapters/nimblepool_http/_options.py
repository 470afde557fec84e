"""The options of a transport, checked; and what follows from them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping  # noqa: TC003 - annotations of public options can be read at run time
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypedDict, final

from nimblepool import PoolObserver, PoolWorker, open_pool

from ._connector import Connector, DirectConnector
from ._dialler import Dialler, SocketSettings, Versions
from ._origin import Origin, origin_of
from ._proxy import HTTPProxyConnector, Proxy
from ._socks import SocksConnector

if TYPE_CHECKING:
    import ssl

    from ._foreign import Foreign
    from ._library import Library

SocketOption: TypeAlias = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
"""What ``socket.setsockopt`` takes."""
Certificate: TypeAlias = str | tuple[str, str] | tuple[str, str, str]
"""A file with certificate and key; or certificate, key and the key's password."""

FORGET: Final = 60.0
"""Seconds after which an origin is forgotten, unless idle connections may live for more than half as long."""
_PROXY_PORTS: Final = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_PASSED_ON: Final = ("max_age", "max_uses", "max_waiting", "observers", "order")


class OriginOptions(TypedDict, total=False):
    """What one origin has otherwise than the others."""

    max_connections: int
    """At most so many connections."""
    min_connections: int
    """Kept open from the first request on, as long as the origin is in use; default 0."""
    http1: bool
    """Whether HTTP/1.1 may be spoken."""
    http2: bool
    """Whether HTTP/2 may be spoken."""


class PoolingOptions(TypedDict, total=False):
    """The options that a pooled transport has beyond those of httpx's own; all times are seconds."""

    name: str
    """Stands in errors, in the log, and before the origin in what observers are told; default ``"http"``."""
    max_per_origin: int | None
    """At most so many connections to one origin; default no limit but ``limits.max_connections``."""
    origins: Mapping[str, OriginOptions]
    """Settings for single origins, by their URLs: ``{"https://books.example": {"max_connections": 2}}``."""
    order: Literal["lifo", "fifo"]
    """Which idle connection is used next: the last one used (default; the others can expire), or the first."""
    max_age: float | None
    """Close a connection that was opened so long ago, or up to 10 % less, once it is not in use; default off."""
    max_uses: int | None
    """Close a connection that has carried so many requests; default off."""
    max_waiting: int | None
    """At most so many requests wait for a connection to an origin; one more fails at once. Default no limit."""
    origin_idle: float | None
    """Forget an origin that was not used for so long, and its figures; default 60, or twice
    ``limits.keepalive_expiry`` if that is more, or never if that is ``None``."""
    close_grace: float
    """How long requests may last once the transport is closed; default 0, as with httpx."""
    observers: Iterable[PoolObserver]
    """Who is told what happens; a pool's name is ``"http[https://example.org:443]"``."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """The options of httpx's own transport."""

    verify: ssl.SSLContext | str | bool
    cert: Certificate | None
    trust_env: bool
    http1: bool
    http2: bool
    limits: Any
    proxy: Any = field(repr=False)
    uds: str | None
    local_address: str | None
    retries: int
    socket_options: Iterable[SocketOption] | None

    def __post_init__(self) -> None:
        _check("retries", self.retries, int, "a whole number, 0 or more", least=0)
        for name in ("max_connections", "max_keepalive_connections"):
            value = getattr(self.limits, name)
            if value is not None:
                least = 1 if name == "max_connections" else 0
                _check(f"limits.{name}", value, int, f"a whole number, {least} or more, or None", least=least)
        if self.uds is not None and self.proxy is not None:
            raise ValueError("uds and proxy exclude each other: give one of them")


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setting:
    """How connections to an origin are opened, and how many there may be."""

    versions: Versions
    min_connections: int = 0
    max_connections: int


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """How a transport opens its pools. Made by `plan` only."""

    library: Library
    connector: Connector
    default: Setting
    settings: dict[tuple[bytes, bytes, int], Setting]
    """By scheme, host and port."""
    most_idle: float
    pool_options: dict[str, Any]

    def setting_for(self, origin: Origin) -> Setting:
        return self.settings.get(origin[:3], self.default)


def plan(library: Library, options: ClientOptions, pooling: PoolingOptions) -> Plan:
    """Check the options, and say what follows from them.

    Raises:
        ValueError: an option has a value that is not allowed; the text says what is.
        TypeError: an option does not exist, or is of the wrong type.
    """
    _check_names("a transport", pooling, PoolingOptions)
    default = _default(options, pooling)
    limits = options.limits
    pool_options = _pool_options(limits, pooling, default)
    origins = pooling.get("origins", {})
    return Plan(
        library=library,
        connector=_connector(library, options),
        default=default,
        settings={
            origin_of(library.client.URL(url), None)[:3]: _setting(url, given, default)
            for url, given in origins.items()
        },
        most_idle=inf if limits.max_keepalive_connections is None else limits.max_keepalive_connections,
        pool_options=pool_options,
    )


def _default(options: ClientOptions, pooling: PoolingOptions) -> Setting:
    per_origin = pooling.get("max_per_origin")
    if per_origin is not None:
        _check("max_per_origin", per_origin, int, "a whole number, 1 or more, or None", least=1)
    return Setting(
        versions=Versions(http1=options.http1, http2=options.http2),
        max_connections=per_origin or options.limits.max_connections or sys.maxsize,
    )


def _setting(url: str, given: OriginOptions, default: Setting) -> Setting:
    _check_names(f"origins[{url!r}]", given, OriginOptions)
    most = given.get("max_connections", default.max_connections)
    least = given.get("min_connections", 0)
    _check(f"origins[{url!r}]: max_connections", most, int, "a whole number, 1 or more", least=1)
    _check(f"origins[{url!r}]: min_connections", least, int, "a whole number, 0 or more", least=0)
    if least > most:
        raise ValueError(f"origins[{url!r}]: min_connections must be at most max_connections ({most}), not {least}")
    versions = Versions(
        http1=given.get("http1", default.versions.http1), http2=given.get("http2", default.versions.http2)
    )
    return Setting(versions=versions, min_connections=least, max_connections=most)


def _pool_options(limits: Foreign, given: PoolingOptions, default: Setting) -> dict[str, Any]:
    expiry = limits.keepalive_expiry
    forget_after = given.get("origin_idle", None if expiry is None else max(FORGET, 2 * expiry))
    if forget_after is not None:
        _check("origin_idle", forget_after, (int, float), "a number of seconds, more than 0, or None", more_than=0)
    options: dict[str, Any] = {
        **{name: value for name, value in given.items() if name in _PASSED_ON},
        "name": given.get("name", "http"),
        "max_size": default.max_connections,
        "max_idle": expiry,
        "close_grace": given.get("close_grace", 0.0),
        "checkout_timeout": None,
        "init_timeout": inf,
        "on_open_failure": "each",
    }
    open_pool(_Unused(), **options)  # not entered: the call checks the options
    return {**options, "max_total": limits.max_connections, "key_idle": forget_after}


def _connector(library: Library, options: ClientOptions) -> Connector:
    sockets = SocketSettings(
        uds=options.uds,
        local_address=options.local_address,
        options=None if options.socket_options is None else tuple(options.socket_options),
    )
    dialler = Dialler(library, sockets)
    context = library.client.create_ssl_context(verify=options.verify, cert=options.cert, trust_env=options.trust_env)
    if options.proxy is None:
        return DirectConnector(dialler, context, options.retries)
    return _proxy_connector(dialler, context, options.proxy)


def _proxy_connector(dialler: Dialler, context: ssl.SSLContext, proxy: Foreign) -> Connector:
    client = dialler.library.client
    if isinstance(proxy, (str, client.URL)):
        proxy = client.Proxy(url=proxy)
    url = proxy.url
    port = url.port or _PROXY_PORTS.get(url.scheme)
    if port is None or url.scheme not in _PROXY_PORTS:
        raise ValueError(f"proxy must be an http, https, socks5 or socks5h URL, not one of the scheme {url.scheme!r}")
    where = Proxy(
        Origin(url.raw_scheme, url.raw_host, port), proxy.raw_auth, list(proxy.headers.raw), proxy.ssl_context
    )
    kind = SocksConnector if url.scheme.startswith("socks") else HTTPProxyConnector
    return kind(dialler, context, where)


def _check_names(what: str, given: Mapping[str, object], known: type) -> None:
    for name in given:
        if name not in known.__annotations__:
            raise TypeError(f"{what} has no option {name!r}; there are {', '.join(known.__annotations__)}")


def _check(
    name: str,
    value: object,
    kind: type | tuple[type, ...],
    allowed: str,
    *,
    least: float = -inf,
    more_than: float = -inf,
) -> None:
    if isinstance(value, bool) or not isinstance(value, kind):
        raise TypeError(f"{name} must be {allowed}, not {value!r}")
    if isinstance(value, (int, float)) and (value < least or value <= more_than):
        raise ValueError(f"{name} must be {allowed}, not {value!r}")


class _Unused(PoolWorker[None]):
    """Stands for a worker where only the options matter."""

    async def init(self) -> None:
        """Never called."""
