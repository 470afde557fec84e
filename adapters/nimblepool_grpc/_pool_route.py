"""The way to a channel of the pool."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, final

import trio

from nimblepool import NoneIdle, PoolClosed

from ._errors import CLOSED

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from nimblepool import Default, Lease, Pool, PromptCheckout

    from ._connectivity import Connectivity
    from ._core import CoreCall, CoreChannel


@final
class PoolRoute:
    """Lends the channels of a pool, while it is open, to one call at a time.

    What becomes of a call says nothing of its channel, which the worker watches: so every lease is released, as after a
    good end. A verdict of the worker's would say the same, and cost as much as a third of a lease.

    Invariants:
        _nursery is not None from `open` to `close`; the pool, closed, can be looked at after that
        _streams lists the RPCs on acquired channels that have not ended, with the tasks that began them
        _waiting counts the clients of `checkout` that have no channel yet
    """

    def __init__(self, connectivity: Connectivity) -> None:
        self._connectivity = connectivity
        self._waiting = 0
        self._pool: Pool[CoreChannel] | None = None
        self._nursery: trio.Nursery | None = None
        self._streams: dict[CoreCall, trio.lowlevel.Task] = {}

    def open(self, pool: Pool[CoreChannel], nursery: trio.Nursery) -> None:
        """Begin to lend."""
        self._pool = pool
        self._nursery = nursery

    def close(self) -> None:
        """Start no more tasks; the pool has closed."""
        self._nursery = None

    @property
    def is_open(self) -> bool:
        """Whether tasks can be started."""
        return self._nursery is not None

    def cancel_own(self) -> None:
        """Cancel the streams of the current task, which is about to close the pool, and so cannot end them itself."""
        current = trio.lowlevel.current_task()
        for core, task in list(self._streams.items()):
            if task is current:
                core.cancel(CLOSED)

    @property
    def pool(self) -> Pool[CoreChannel]:
        """The pool.

        Raises:
            nimblepool.PoolClosed: it was not opened yet.
        """
        if self._pool is None:
            raise PoolClosed("the channel is not open yet: use it inside `async with PooledChannel(...) as channel`")
        return self._pool

    def at_once(self) -> PromptCheckout[CoreChannel] | None:
        if self._pool is None or self._waiting or not self._connectivity.ready:
            return None
        try:
            return self._pool.checkout_nowait()
        except (NoneIdle, PoolClosed):
            return None

    @asynccontextmanager
    async def checkout(self, patience: float | Default | None) -> AsyncGenerator[Lease[CoreChannel]]:
        waiting = True
        self._waiting += 1
        try:
            async with self.pool.checkout(timeout=patience) as lease:
                self._waiting -= 1
                waiting = False
                try:
                    yield lease
                finally:
                    lease.release()
        finally:
            self._waiting -= waiting

    async def acquire(self, patience: float | Default | None) -> Lease[CoreChannel]:
        return await self.pool.acquire(timeout=patience, owner=None)

    def began(self, core: CoreCall) -> None:
        self._streams[core] = trio.lowlevel.current_task()
        core.add_done_callback(lambda: self._streams.pop(core, None))

    def start_soon(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        assert self._nursery is not None, "bug: an RPC has begun on a channel that is not open"
        self._nursery.start_soon(run)
