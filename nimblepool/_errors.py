"""The exceptions of the pool: the type says who is at fault, the text says what to do."""

from __future__ import annotations


class PoolError(Exception):
    """Everything the pool raises by itself."""


class PoolClosed(PoolError):
    """The pool is closing or closed: it lends nothing any more."""


class CheckoutTimeout(PoolError, TimeoutError):
    """No resource could be lent before the checkout's deadline.

    The text carries the pool's counts and who holds the leases; ``__cause__`` is the last failure to open a
    resource, if the pool is failing to open them.
    """


class PoolOverloaded(PoolError):
    """The pool sheds load: the queue is full, or has been too slow for too long."""


class PoolUnavailable(PoolError):
    """No resource can be opened at present; ``__cause__`` is what the worker's ``init`` raised.

    Attributes:
        retry_after: seconds until the pool tries to open a resource again (0.0 if it may try at once).
    """

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NoneIdle(PoolError):
    """``checkout_nowait`` found nothing that could be lent without waiting."""


class LeaseExpired(PoolError):
    """The lease has ended: its resource belongs to somebody else now."""


class LeaseTimeout(LeaseExpired, TimeoutError):
    """The lease was held for longer than ``max_hold``; its resource has been removed."""


class LeaseRevoked(LeaseExpired):
    """The pool closed and ``close_grace`` ran out while the lease was held."""


class ResourceLost(PoolError):
    """The resource died while it was leased, and the pool was asked to cancel the body (``on_death="cancel"``)."""
