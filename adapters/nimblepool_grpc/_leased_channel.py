"""One channel of the pool, for all calls of a block."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from grpc import ChannelConnectivity

from ._errors import in_grpcs_words
from ._lease_route import LeaseRoute
from ._stub_channel import StubChannel

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from nimblepool import Default, Lease

    from ._core import CoreChannel
    from ._interceptors import Interceptors
    from ._pool_route import PoolRoute


@final
class LeasedChannel(StubChannel):
    """One channel for a block: ``async with channel.lease() as leased: stub = GreeterStub(leased)``.

    All calls through it go over one connection. However many there are at a time, they count as one lease. Those that
    run still are cancelled when the block is left (`RpcCancelled`), and later ones get `RpcLeaseExpired`. If the pool
    closes, and its ``close_grace`` runs out, the block is cancelled, and raises `RpcLeaseRevoked`.
    """

    def __init__(
        self, pool_route: PoolRoute, interceptors: Interceptors, timeout: float | Default | None, source: str
    ) -> None:
        self._source = source
        self._pool_route = pool_route
        self._timeout = timeout
        self._own_route = LeaseRoute(pool_route)
        self._lease: Lease[CoreChannel] | None = None
        super().__init__(self._own_route, interceptors)

    async def __aenter__(self) -> Self:
        """Take the lease; a checkpoint."""
        if self._lease is not None:
            raise RuntimeError("a lease can be entered only once; call lease() again")
        with in_grpcs_words():
            self._lease = self._pool_route.pool.checkout(timeout=self._timeout)
            self._own_route.open(await self._lease.__aenter__())
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Cancel what runs, and end the lease; no checkpoint."""
        self._own_route.close()
        assert self._lease is not None, "bug: left without having been entered"
        self._lease.release()
        with in_grpcs_words():
            await self._lease.__aexit__(exc_type, exc, traceback)

    async def close(self, grace: float | None = None) -> None:  # noqa: ARG002 - grpc.aio's
        """Take no more calls, and cancel those that run; the lease itself ends with the block."""
        self._own_route.close()

    def get_state(self, try_to_connect: bool = False) -> ChannelConnectivity:  # noqa: ARG002 - grpc.aio's
        """Return the channel's state; raises `RpcLeaseExpired` outside the block, like the next two."""
        return self._channel.state

    async def wait_for_state_change(self, last_observed_state: ChannelConnectivity) -> None:
        """Wait until the channel's state is another one."""
        await self._channel.wait_for_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait until the channel is connected; it was when it was leased."""
        channel = self._channel
        channel.connect()
        state = channel.state
        while state is not ChannelConnectivity.READY:
            state = await channel.wait_for_change(state)

    @property
    def _channel(self) -> CoreChannel:
        with in_grpcs_words():
            return self._own_route.channel

    def __repr__(self) -> str:
        return f"<LeasedChannel of {self._source}, {'held' if self._own_route.is_open else 'not held'}>"
