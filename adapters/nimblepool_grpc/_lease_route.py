"""The way to the channel of one lease."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, final

import trio

from nimblepool import LeaseExpired

from ._core import CoreChannel  # noqa: TC001 - the fields of a NamedTuple are looked at
from ._errors import RpcCancelled

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from nimblepool import Default, Lease

    from ._core import CoreCall
    from ._pool_route import PoolRoute

LEASE_ENDED = "The lease of the channel has ended!"


class Part(NamedTuple):
    """The right to a call on a channel that is leased already."""

    resource: CoreChannel

    def release(self) -> None:
        """Do nothing: the lease itself is the block's."""


@final
class LeaseRoute:
    """Lends the channel of one lease to any number of calls at a time.

    Invariants:
        _lease is not None from the beginning of the block to its end
        _scopes and _streams are what runs on the channel: the calls that a task carries out, and the others
    """

    def __init__(self, pool_route: PoolRoute) -> None:
        self._pool_route = pool_route
        self._lease: Lease[CoreChannel] | None = None
        self._scopes: set[trio.CancelScope] = set()
        self._streams: set[CoreCall] = set()

    def open(self, lease: Lease[CoreChannel]) -> None:
        """Begin to lend."""
        self._lease = lease

    def close(self) -> None:
        """Lend no more, and cancel what runs."""
        self._lease = None
        for scope in self._scopes:
            scope.cancel()
        for core in tuple(self._streams):
            core.cancel(LEASE_ENDED)

    @property
    def is_open(self) -> bool:
        """Whether the lease is held."""
        return self._lease is not None

    @property
    def channel(self) -> CoreChannel:
        """The channel.

        Raises:
            nimblepool.LeaseExpired: the block has ended, or not begun.
        """
        if self._lease is None:
            raise LeaseExpired("this channel is not leased: use it inside `async with channel.lease() as leased`")
        return self._lease.resource

    def at_once(self) -> None:
        """Say that `checkout` is to be asked, whose block can be cancelled."""

    @asynccontextmanager
    async def checkout(self, patience: float | Default | None) -> AsyncGenerator[Part]:  # noqa: ARG002 - it is here
        part = Part(self.channel)
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                yield part
            finally:
                self._scopes.discard(scope)
        if scope.cancelled_caught:
            raise RpcCancelled(LEASE_ENDED)

    async def acquire(self, patience: float | Default | None) -> Part:  # noqa: ARG002 - see above
        await trio.lowlevel.checkpoint()
        return Part(self.channel)  # only now: the block may have ended meanwhile

    def began(self, core: CoreCall) -> None:
        self._streams.add(core)
        core.add_done_callback(lambda: self._streams.discard(core))

    def start_soon(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._pool_route.start_soon(run)
