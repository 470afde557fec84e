"""The connectivity of several channels as that of one."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, final

import trio
from grpc import ChannelConnectivity

if TYPE_CHECKING:
    from collections.abc import Generator

    from ._core import CoreChannel


@final
class Connectivity:
    """What a pool's channels look like from outside, as if they were one.

    Invariant: a channel is in ready, or in _connecting, or in neither
    """

    def __init__(self) -> None:
        self.ready: set[CoreChannel] = set()
        """The channels that are connected."""
        self._connecting: set[CoreChannel] = set()
        self._failed = False
        self._closed = True
        self._changed = trio.lowlevel.ParkingLot()

    @property
    def state(self) -> ChannelConnectivity:
        """READY if any channel is, and so on down."""
        if self._closed:
            return ChannelConnectivity.SHUTDOWN
        if self.ready:
            return ChannelConnectivity.READY
        if self._connecting:
            return ChannelConnectivity.CONNECTING
        return ChannelConnectivity.TRANSIENT_FAILURE if self._failed else ChannelConnectivity.IDLE

    async def wait_for_change(self, last: ChannelConnectivity) -> None:
        """Wait until the state is not ``last``."""
        await trio.lowlevel.checkpoint()
        while self.state is last:
            await self._changed.park()

    def opened(self) -> None:
        """Take note that the pool is open."""
        self._closed = self._failed = False
        self._changed.unpark_all()

    def closed(self) -> None:
        """Take note that the pool is closed."""
        self._closed = True
        self._changed.unpark_all()

    @contextmanager
    def connecting(self, channel: CoreChannel) -> Generator[None]:
        """Take note that the block connects ``channel``."""
        self._connecting.add(channel)
        self._changed.unpark_all()
        try:
            yield
        except BaseException as error:
            self._failed = isinstance(error, Exception)
            raise
        else:
            self._failed = False
            self.ready.add(channel)
        finally:
            self._connecting.discard(channel)
            self._changed.unpark_all()

    def lost(self, channel: CoreChannel) -> None:
        """Take note that ``channel`` is of no more use."""
        self.ready.discard(channel)
        self._changed.unpark_all()
