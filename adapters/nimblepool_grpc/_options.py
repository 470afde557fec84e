"""The channel arguments that every channel of a pool has."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from ._check import checked_pairs

INTEGERS: Final = range(-(2**31), 2**31)
"""What the core takes: the numbers of a C int."""


def _version() -> str:
    try:
        return version("nimblepool")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"


USER_AGENT: Final = "grpc.primary_user_agent"
DEFAULTS: Final[dict[str, Any]] = {
    # Channels of equal arguments share one connection otherwise.
    "grpc.use_local_subchannel_pool": 1,
    # Servers take pings that come more often than every 5 minutes for abuse, unless they are told otherwise. That there
    # are any lets the kernel give up after `keepalive_timeout_ms` on what was sent and is not acknowledged.
    "grpc.keepalive_time_ms": 310_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.http2.ping_timeout_ms": 10_000,
    # Calls that were on a channel when it broke, and wait until it is ready again, stay on it, and the core reconnects
    # it: with its own delays, of 1 to 120 s, they would go on waiting when the server is back.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 150,
}


def channel_arguments(options: object) -> tuple[tuple[str, Any], ...]:
    """Return the arguments of a channel: the defaults, and what the user says in their place.

    Raises:
        TypeError: ``options`` are not pairs, or a value is not of a type that gRPC takes.
        ValueError: a value is one that gRPC does not take.
    """
    given = dict(checked_pairs("options", options))
    for name, value in given.items():
        _check_option(name, value)
    agent = " ".join(filter(None, (str(given.get(USER_AGENT, "")), f"nimblepool/{_version()}")))
    return tuple({**DEFAULTS, **given, USER_AGENT: agent}.items())


def _check_option(name: str, value: Any) -> None:  # noqa: ANN401 - it is asked because it may be anything
    """Raise what the core would raise for each channel anew; the value may be a secret, and is not quoted."""
    if not (_is_encodable(name) and _is_encodable(value)):
        raise ValueError(f"option {name!r} has a surrogate in it, which UTF-8 cannot encode")
    if isinstance(value, str | bytes):
        return
    if isinstance(value, float) or not hasattr(value, "__int__"):
        raise TypeError(f"option {name!r} must be a whole number or a string, not {type(value).__name__}")
    if int(value) not in INTEGERS:
        raise ValueError(f"option {name!r} must be at least {INTEGERS.start} and less than {INTEGERS.stop}")


def _is_encodable(value: object) -> bool:
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return False
    return True
