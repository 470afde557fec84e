"""The driver's options, checked before the first attempt: the driver itself would find most mistakes at the last."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from inspect import isclass
from typing import Any, Final, TypeAlias, cast

from websockets.datastructures import Headers
from websockets.exceptions import InvalidProxy
from websockets.proxy import parse_proxy
from websockets.trio.client import ClientConnection

from ._check import check_count, check_seconds

Check: TypeAlias = Callable[[str, Any], None]
"""Raises unless the option of this name may have this value."""
NOT_OURS: Final = {
    "stream": "a stream makes one connection, and a pool makes many: use host, port or path",
    "reconnect_delays": "the pool decides when to try again: see backoff of the pool",
}
NOT_WITH_PATH: Final = ("host", "port", "proxy", "local_address")
"""What the driver ignores if it is told to use a unix socket."""
LAST_PORT: Final = 65_535


def check_names(options: Mapping[str, object], known: Sequence[str]) -> None:
    """Raise ``TypeError`` if there is an option that does not exist."""
    for name in options:
        if name in NOT_OURS:
            raise TypeError(f"{name}: {NOT_OURS[name]}")
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
            raise TypeError(f"a WebSocketWorker has no option {name!r}; {hint}")


def check_options(options: Mapping[str, Any], *, is_secure: bool) -> None:
    """Raise ``TypeError`` or ``ValueError`` if an option has a value that is not allowed, or does not go with another.

    What may be secret is not quoted.
    """
    for name, value in options.items():
        CHECKS[name](name, value)
    _check_path(options)
    _check_tls(options, is_secure=is_secure)


def headers_from(value: Any) -> Headers | None:  # noqa: ANN401 - whatever the user gave
    """Return ``additional_headers`` as what can be sent again and again; an iterator is read here.

    Raises:
        TypeError: they are none; the text does not quote them.
    """
    if value is None:
        return None
    try:
        pairs: list[tuple[Any, Any]] = list(Headers(value).raw_items())
    except (TypeError, ValueError, AttributeError):
        pairs = [(None, None)]
    if not all(isinstance(part, str) for pair in pairs for part in pair):
        raise TypeError("additional_headers must be a mapping of str to str, or a list of such pairs")
    return Headers(pairs)


def _check_path(options: Mapping[str, Any]) -> None:
    if options.get("path") is None:
        return
    for name in NOT_WITH_PATH:
        if options.get(name) not in (None, True):
            raise ValueError(f"{name} does not go with path: a unix socket is connected to directly")


def _check_tls(options: Mapping[str, Any], *, is_secure: bool) -> None:
    for name in ("ssl", "server_hostname"):
        if options.get(name) is not None and not is_secure:
            raise ValueError(f"{name} does not go with a ws:// URI, which has no TLS: use wss://")
    proxy = options.get("proxy", True)
    if proxy is True or (isinstance(proxy, str) and proxy.startswith("https:")):
        return
    for name in ("proxy_ssl", "proxy_server_hostname"):
        if options.get(name) is not None:
            raise ValueError(f"{name} is for a proxy like https://host:port")


def _is(kind: type | tuple[type, ...], text: str) -> Check:
    """Return a check for an instance of ``kind`` or ``None``."""

    def check(name: str, value: object) -> None:
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"{name} must be {text} or None, not {type(value).__name__}")

    return check


def _check_list(name: str, value: object) -> None:
    if value is not None and (isinstance(value, str | bytes) or not isinstance(value, Sequence)):
        raise TypeError(f"{name} must be a list or None, not {type(value).__name__}")


def _check_extensions(name: str, value: Any) -> None:  # noqa: ANN401 - whatever the user gave
    _check_list(name, value)
    for each in value or ():
        if not hasattr(each, "get_request_params"):
            raise TypeError(f"each of {name} must be a ClientExtensionFactory, not {type(each).__name__}")


def _check_subprotocols(name: str, value: Any) -> None:  # noqa: ANN401 - whatever the user gave
    _check_list(name, value)
    for each in value or ():
        if not isinstance(each, str):
            raise TypeError(f"each of {name} must be a str, not {type(each).__name__}")


def _check_compression(name: str, value: object) -> None:
    if value not in (None, "deflate"):
        raise ValueError(f"{name} must be 'deflate' or None, not {value!r}")


def _check_proxy(name: str, value: object) -> None:
    if value is None or value is True:
        return
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, True (the environment's) or None, not {type(value).__name__}")
    try:
        parse_proxy(value)
    except InvalidProxy as error:
        raise ValueError(f"{name} must be like http://host:port or socks5h://host:port: {error.msg}") from None


def _check_time(name: str, value: object, *, zero: bool = False) -> None:
    if value is not None:
        check_seconds(name, value, zero=zero)


def _check_limit(name: str, value: object, *, least: int) -> None:
    """Raise unless it is one number or two, each ``None`` if there is no limit."""
    parts = cast("tuple[object, ...]", value) if isinstance(value, tuple) else (value, None)
    if len(parts) != 2:  # noqa: PLR2004 - a pair
        raise ValueError(f"{name} must be a number, a tuple of two, or None")
    for part in parts:
        if part is not None:
            check_count(name, part, least=least)


def _check_queue(name: str, value: Any) -> None:  # noqa: ANN401 - whatever the user gave
    _check_limit(name, value, least=0)
    if isinstance(value, tuple):
        high, low = cast("tuple[int | None, int | None]", value)
        if high is not None and low is not None and low > high:
            raise ValueError(f"{name} must be (high, low) with low at most high, not {value!r}")


def _check_connection(name: str, value: object) -> None:
    if value is not None and not (isclass(value) and issubclass(value, ClientConnection)):
        raise TypeError(f"{name} must be a subclass of ClientConnection, which the pool adds to, not {value!r}")


def _check_port(name: str, value: Any) -> None:  # noqa: ANN401 - whatever the user gave
    if value is None:
        return
    check_count(name, value)
    if value > LAST_PORT:
        raise ValueError(f"{name} must be at most {LAST_PORT}, not {value}")


_a_text = _is(str, "a str")
_a_context = _is(ssl.SSLContext, "an ssl.SSLContext")
CHECKS: Final[Mapping[str, Check]] = {
    "ssl": _a_context,
    "server_hostname": _a_text,
    "origin": _a_text,
    "extensions": _check_extensions,
    "subprotocols": _check_subprotocols,
    "compression": _check_compression,
    "additional_headers": _is(Headers, "headers"),
    "user_agent_header": _a_text,
    "proxy": _check_proxy,
    "proxy_ssl": _a_context,
    "proxy_server_hostname": _a_text,
    "open_timeout": _check_time,
    "ping_interval": _check_time,
    "ping_timeout": _check_time,
    "close_timeout": partial(_check_time, zero=True),
    "max_size": partial(_check_limit, least=1),
    "max_queue": _check_queue,
    "logger": _is((logging.Logger, logging.LoggerAdapter), "a logger"),
    "create_connection": _check_connection,
    "host": _a_text,
    "port": _check_port,
    "path": _is((str, os.PathLike), "a path"),
    "happy_eyeballs_delay": partial(_check_time, zero=True),
    "local_address": _a_text,
}
