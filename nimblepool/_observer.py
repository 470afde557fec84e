"""Who is told what happens in a pool."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ._breaker import BreakerState
    from ._verdict import Reason

logger = logging.getLogger("nimblepool")


class PoolObserver:
    """Override what you want to hear of. All times are seconds; ``pool`` is the pool's name.

    The methods run between two steps of the event loop, after the change they tell of: they must not block. One that
    raises is logged, and its observer hears nothing more.
    """

    def checkout(self, pool: str, wait: float) -> None:
        """A lease began after ``wait``, 0 if it was direct."""

    def checkin(self, pool: str, used: float, error: BaseException | None) -> None:
        """A lease ended after ``used``; ``error`` is what its body raised."""

    def open(self, pool: str, took: float) -> None:
        """A resource was opened."""

    def open_failed(self, pool: str, error: BaseException, took: float) -> None:
        """``init`` raised ``error`` or ran out of time."""

    def close(self, pool: str, reason: Reason, age: float) -> None:
        """A resource was terminated, and why."""

    def ping_failed(self, pool: str, error: BaseException) -> None:
        """``ping`` raised ``error`` or ran out of time."""

    def reset_failed(self, pool: str, error: BaseException) -> None:
        """``reset`` raised ``error`` or ran out of time."""

    def died(self, pool: str, error: BaseException | None) -> None:
        """``watch`` ended, with ``error`` if it raised."""

    def timeout(self, pool: str, wait: float) -> None:
        """A checkout timed out."""

    def shed(self, pool: str, wait: float) -> None:
        """A checkout got `PoolOverloaded`."""

    def cancelled(self, pool: str, wait: float) -> None:
        """A checkout was cancelled while it waited."""

    def breaker(self, pool: str, state: BreakerState) -> None:
        """The circuit breaker changed its state."""

    def leak(self, pool: str, where: str, held: float) -> None:
        """A lease acquired at ``where`` was taken back: it was abandoned, or held for longer than ``max_hold``."""


class Audience:
    """The observers of one pool.

    Args:
        pool: the pool's name.
        observers: who is told.
        crash: told of what is more than a failure (``SystemExit``), which nobody could be given.
    """

    def __init__(self, pool: str, observers: Iterable[PoolObserver], crash: Callable[[BaseException], object]) -> None:
        self._pool = pool
        self._observers = tuple(observers)
        self._crash = crash

    def __bool__(self) -> bool:
        return bool(self._observers)

    def tell(self, event: str, *details: object) -> None:
        """Call the method named ``event`` of each observer; drop those that raise."""
        for observer in self._observers:
            try:
                getattr(observer, event)(self._pool, *details)
            except BaseException as error:  # noqa: BLE001 - it is logged, or ends the pool
                self._drop(observer, error)

    def _drop(self, observer: PoolObserver, error: BaseException) -> None:
        self._observers = tuple(other for other in self._observers if other is not observer)
        if isinstance(error, Exception):
            logger.error("pool %r: observer %r raised and is dropped", self._pool, observer, exc_info=error)
        else:
            self._crash(error)
