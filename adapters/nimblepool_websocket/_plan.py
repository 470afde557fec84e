"""The checked options of the pools of sockets."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, cast, final

from nimblepool import PoolOptions, open_pool

from ._asking import ask, encoded
from ._check import check_count, check_positive, seconds
from ._correlate import correlator_from
from ._worker import WebSocketWorker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from websockets.typing import Data, DataLike

    from nimblepool import Default

    from ._asking import Checkout
    from ._correlate import Correlate, Correlator

CHECKOUT_TIMEOUT = 5.0
"""What any pool has by default."""
PER_LEASE = ("max_uses", "max_hold")
"""What is said of leases means little where each request is one."""


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
    """How the pools are opened, and what is sent through them.

    Raises:
        ValueError: an option has a value that is not allowed.
        TypeError: an option does not exist, or is of the wrong type.
    """

    def __init__(
        self,
        correlate: Correlate | None,
        *,
        shared_size: int,
        max_in_flight: int,
        request_timeout: float,
        options: Mapping[str, Any],
    ) -> None:
        check_count("shared_size", shared_size)
        check_count("max_in_flight", max_in_flight)
        check_positive("request_timeout", request_timeout)
        self.correlator = correlator_from(correlate)
        self.shared_size = shared_size
        self.max_in_flight = max_in_flight
        self.asker = Asker(self.correlator, request_timeout)
        self.exclusive = _checked(options)
        self.shared = _shared(self.exclusive, shared_size)
        timeout = self.exclusive.get("checkout_timeout", CHECKOUT_TIMEOUT)
        self.checkout_timeout = inf if timeout is None else timeout


@final
class Asker:
    """Checks a message, and sends it through one pool or another."""

    def __init__(self, correlator: Correlator, request_timeout: float) -> None:
        self._correlator = correlator
        self._request_timeout = request_timeout

    async def request(
        self, checkout: Checkout, message: DataLike, *, timeout: float | Default | None, retry: bool
    ) -> Data:
        """See `WebSockets.request`."""
        data, is_text = encoded(message)
        key = self._correlator.request_id(message if isinstance(message, str) else data)
        if key is None:
            raise ValueError("correlate finds no id in this message, so that no reply can be matched to it: send() it")
        limit = seconds(timeout, self._request_timeout)
        reply = await ask(checkout, key, data, is_text=is_text, seconds=limit, retry=retry)
        assert reply is not None, "bug: a request without a reply has ended well"
        return reply

    async def send(self, checkout: Checkout, message: DataLike, *, timeout: float | Default | None) -> None:
        """See `WebSockets.send`."""
        data, is_text = encoded(message)
        limit = seconds(timeout, self._request_timeout)
        await ask(checkout, None, data, is_text=is_text, seconds=limit, retry=True)


def _checked(options: Mapping[str, Any]) -> PoolOptions:
    observers = options.get("observers")
    if observers is not None:
        # More than one pool is going to read them.
        options = {**options, "observers": tuple(observers)}
    checked = cast("PoolOptions", dict(options))
    # Not entered: the call checks the options.
    open_pool(_UNUSED, **checked)
    return checked


_UNUSED = WebSocketWorker("ws://localhost")


def _shared(options: PoolOptions, shared_size: int) -> PoolOptions:
    general = {name: value for name, value in options.items() if name not in PER_LEASE}
    name = f"{options.get('name', 'pool')} (shared)"
    return cast("PoolOptions", {**general, "name": name, "min_size": 0, "max_size": shared_size})
