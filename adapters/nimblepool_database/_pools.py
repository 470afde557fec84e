"""The pools under one database, and which of them serves what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple, cast, final

from nimblepool import Pool, PoolOptions, PoolStats, open_pool

from ._holding import Routes

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from ._resource import DatabaseResource
    from ._worker import DatabaseWorker

WHAT_ANY_POOL_HAS_BY_DEFAULT = 10
ADDED = (
    *("min_size", "max_size", "size", "idle", "leased", "opening", "checking", "closing", "leases", "waiting"),
    *("started", "direct", "waited", "timed_out", "shed", "cancelled", "refused", "failed"),
    *("opened", "open_failures", "closed", "lost"),
)
"""The figures of which the sum over several pools means something."""
BREAKERS = ("closed", "half-open", "open")
"""From good to bad."""


@final
class Pools(NamedTuple):
    """The open pools, each under the name of what it serves; one pool may serve several."""

    general: Pool[DatabaseResource]
    writing: Pool[DatabaseResource]
    reading: Pool[DatabaseResource]

    @property
    def routes(self) -> Routes:
        """The checkouts of the pools."""
        return Routes(self.general.checkout, self.writing.checkout, self.reading.checkout)

    def stats(self) -> PoolStats:
        """Add the pools' figures up."""
        return reduce(_sum, [pool.stats for pool in dict.fromkeys((self.general, self.writing, self.reading))])


@final
class Plan:
    """Which pools a database opens, and how; its worker's options and the user's are checked once and for all.

    Raises:
        ValueError: an option has a value that is not allowed, or there is no use for a replica.
        TypeError: an option does not exist, or is of the wrong type.
    """

    def __init__(self, worker: DatabaseWorker[Any], replica: DatabaseWorker[Any] | None, options: PoolOptions) -> None:
        observers = options.get("observers")
        if isinstance(observers, Iterator):
            # More than one pool is going to read them.
            options = {**options, "observers": tuple(observers)}
        self.worker = worker
        self.options = _checked(worker, options)
        self._readers = worker.reader() if self.options.get("max_size", WHAT_ANY_POOL_HAS_BY_DEFAULT) > 1 else None
        self._replica = replica
        self._replica_options = PoolOptions() if replica is None else _checked(replica, options)
        if replica is not None and worker.reader() is not None:
            raise ValueError(f"replica: {worker.database} reads and writes one file; leave it out")

    async def open(self, stack: AsyncExitStack) -> Pools:
        """Open the pools; ``stack`` closes them."""
        if self._readers is not None:
            return await self._open_beside_a_writer(stack, self._readers)
        primary = await stack.enter_async_context(open_pool(self.worker, **self.options))
        if self._replica is None:
            return Pools(primary, primary, primary)
        options = _named(self._replica_options, "replica")
        return Pools(primary, primary, await stack.enter_async_context(open_pool(self._replica, **options)))

    async def _open_beside_a_writer(self, stack: AsyncExitStack, worker: DatabaseWorker[Any]) -> Pools:
        for_writer, for_readers = _shared_out(self.options)
        # Opened first, and so closed last: what the readers have seen is then all in the file.
        writer = await stack.enter_async_context(open_pool(self.worker, **_named(for_writer, "writer")))
        readers = await stack.enter_async_context(open_pool(worker, **for_readers))
        return Pools(readers, writer, readers)


def _checked(worker: DatabaseWorker[Any], given: PoolOptions) -> PoolOptions:
    options = cast("PoolOptions", worker.pool_options(given))
    # Not entered: the call checks the options.
    open_pool(worker, **options)
    return options


def _shared_out(options: PoolOptions) -> tuple[PoolOptions, PoolOptions]:
    """Give one connection to the writer and the others to the readers, who also fill ``min_size`` first."""
    most = options.get("max_size", WHAT_ANY_POOL_HAS_BY_DEFAULT) - 1
    least = options.get("min_size", 0)
    readers_least = min(least, most)
    for_writer: PoolOptions = {**options, "min_size": least - readers_least, "max_size": 1}
    for_readers: PoolOptions = {**options, "min_size": readers_least, "max_size": most}
    return for_writer, for_readers


def _named(options: PoolOptions, role: str) -> PoolOptions:
    return {**options, "name": f"{options.get('name', 'pool')} ({role})"}


def _sum(one: PoolStats, other: PoolStats) -> PoolStats:
    return replace(
        one,
        **{name: getattr(one, name) + getattr(other, name) for name in ADDED},
        oldest_wait=max(one.oldest_wait, other.oldest_wait),
        longest_wait=max(one.longest_wait, other.longest_wait),
        breaker=max(one.breaker, other.breaker, key=BREAKERS.index),
    )
