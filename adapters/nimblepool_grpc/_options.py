"""The channel arguments that every channel of a pool has."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from ._check import checked_pairs


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
}


def channel_arguments(options: object) -> tuple[tuple[str, Any], ...]:
    """Return the arguments of a channel: the defaults, and what the user says in their place.

    Raises:
        TypeError: ``options`` are not pairs, or a value is not what gRPC takes.
    """
    given = dict(checked_pairs("options", options))
    for name, value in given.items():
        if isinstance(value, float) or not (isinstance(value, str | bytes) or hasattr(value, "__int__")):
            raise TypeError(f"option {name!r} must be a whole number or a string, not {type(value).__name__}")
    agent = " ".join(filter(None, (str(given.get(USER_AGENT, "")), f"nimblepool/{_version()}")))
    return tuple({**DEFAULTS, **given, USER_AGENT: agent}.items())
