"""The checked options of the pools of sockets."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, Final, cast, final

from nimblepool import PoolOptions, open_pool

from ._check import check_count, check_seconds
from ._correlate import correlator_from
from ._worker import WebSocketWorker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._correlate import Correlate

CHECKOUT_TIMEOUT: Final = 5.0
"""What any pool has by default."""
PER_LEASE: Final = ("max_uses", "max_hold", "on_death")
"""What is said of leases means little where each request is one, and the requests themselves hear of a death."""


def worker_from(source: object) -> WebSocketWorker:
    """Return the worker that is meant.

    Raises:
        TypeError: ``source`` is neither a URI nor a worker.
        ValueError: the URI is not valid.
    """
    if isinstance(source, WebSocketWorker):
        return source
    if isinstance(source, str):
        return WebSocketWorker(source)
    raise TypeError(f"the source must be a URI or a WebSocketWorker, not {type(source).__name__}")


@final
class Plan:
    """How the pools are opened.

    Args:
        correlate: what users give.
        options: of the pool of leased sockets.
        shared: of the pool of shared sockets, where they differ.

    Raises:
        ValueError: an option has a value that is not allowed.
        TypeError: an option does not exist, or is of the wrong type.
    """

    def __init__(
        self,
        correlate: Correlate | None,
        *,
        shared_size: int,
        shared_min_size: int,
        max_in_flight: int,
        request_timeout: float,
        options: Mapping[str, Any],
        shared: Mapping[str, Any],
    ) -> None:
        check_count("shared_size", shared_size)
        check_count("shared_min_size", shared_min_size, least=0)
        if shared_min_size > shared_size:
            raise ValueError(f"shared_min_size must be at most shared_size ({shared_size}), not {shared_min_size}")
        check_count("max_in_flight", max_in_flight)
        check_seconds("request_timeout", request_timeout)
        self.correlator = correlator_from(correlate)
        self.shared_size = shared_size
        self.max_in_flight = max_in_flight
        self.request_timeout = request_timeout
        self.exclusive = _checked(options)
        self.shared = _shared({**self.exclusive, **shared}, shared_min_size, shared_size)
        timeout = self.exclusive.get("checkout_timeout", CHECKOUT_TIMEOUT)
        self.checkout_timeout = inf if timeout is None else timeout


def _checked(options: Mapping[str, Any]) -> PoolOptions:
    observers = options.get("observers")
    if observers is not None:
        # More than one pool is going to read them.
        options = {**options, "observers": tuple(observers)}
    checked = cast("PoolOptions", dict(options))
    # Not entered: the call checks the options.
    open_pool(WebSocketWorker("ws://localhost"), **checked)
    return checked


def _shared(options: Mapping[str, Any], min_size: int, max_size: int) -> PoolOptions:
    general = {name: value for name, value in options.items() if name not in PER_LEASE}
    name = f"{options.get('name', 'pool')} (shared)"
    return cast("PoolOptions", {**general, "name": name, "min_size": min_size, "max_size": max_size})
