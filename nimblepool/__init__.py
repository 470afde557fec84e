"""A resource pool for trio: define how to open and close one thing, and the pool does everything else.

Write a `PoolWorker`, open a pool of it with `open_pool`, and lend with ``async with pool.checkout() as lease``. What
the worker is asked, and when, stands in `PoolWorker`; what can happen to a resource, in the table at the top of the
module ``_slot``. No client ever runs a worker's asynchronous callback, and no waiter is bound to a resource: one whose
ping fails is closed by the pool, and whoever waits keeps the place in the queue and gets the next one.
"""

from ._backoff import Backoff
from ._breaker import BreakerState, CircuitBreaker
from ._codel import CoDel
from ._errors import (
    CheckoutTimeout,
    LeaseExpired,
    LeaseRevoked,
    LeaseTimeout,
    NoneIdle,
    PoolClosed,
    PoolError,
    PoolOverloaded,
    PoolUnavailable,
    ResourceLost,
)
from ._keyed import KeyedCheckout, KeyedPool, KeyedStats, open_keyed_pool
from ._lease import Lease, PromptCheckout
from ._observer import PoolObserver
from ._options import PoolOptions
from ._pool import DEFAULT, Default, Pool, open_pool, serve_pool
from ._stats import PoolStats, PoolStatus
from ._verdict import Fatal, Reason, Skip, Stage, Verdict
from ._worker import PoolWorker

__all__ = [
    "DEFAULT",
    "Backoff",
    "BreakerState",
    "CheckoutTimeout",
    "CircuitBreaker",
    "CoDel",
    "Default",
    "Fatal",
    "KeyedCheckout",
    "KeyedPool",
    "KeyedStats",
    "Lease",
    "LeaseExpired",
    "LeaseRevoked",
    "LeaseTimeout",
    "NoneIdle",
    "Pool",
    "PoolClosed",
    "PoolError",
    "PoolObserver",
    "PoolOptions",
    "PoolOverloaded",
    "PoolStats",
    "PoolStatus",
    "PoolUnavailable",
    "PoolWorker",
    "PromptCheckout",
    "Reason",
    "ResourceLost",
    "Skip",
    "Stage",
    "Verdict",
    "open_keyed_pool",
    "open_pool",
    "serve_pool",
]
