"""A resource pool for trio: define how to open and close one thing, and the pool does everything else."""

import logging

from ._backoff import Backoff
from ._breaker import CircuitBreaker
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
from ._keyed import KeyedPool, open_keyed_pool
from ._lease import Lease
from ._observer import PoolObserver
from ._options import PoolOptions
from ._pool import Pool, open_pool, serve_pool
from ._stats import PoolStats
from ._verdict import Reason, Skip, Stage, Verdict
from ._worker import PoolWorker

__all__ = [
    "Backoff",
    "CheckoutTimeout",
    "CircuitBreaker",
    "CoDel",
    "KeyedPool",
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
    "PoolUnavailable",
    "PoolWorker",
    "Reason",
    "ResourceLost",
    "Skip",
    "Stage",
    "Verdict",
    "open_keyed_pool",
    "open_pool",
    "serve_pool",
]

logging.getLogger("nimblepool").addHandler(logging.NullHandler())
