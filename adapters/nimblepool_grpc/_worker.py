"""The pool's worker for gRPC channels."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, final

import trio
from grpc import ChannelConnectivity, ChannelCredentials, Compression, StatusCode

from nimblepool import PoolWorker, Reason

from ._check import check_count, check_optional, check_text
from ._connectivity import Connectivity
from ._core import CoreChannel
from ._errors import ChannelFailed
from ._health import CHECK, Health
from ._options import channel_arguments

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._types import Options

READY: Final = ChannelConnectivity.READY
LOST: Final = frozenset({ChannelConnectivity.TRANSIENT_FAILURE, ChannelConnectivity.SHUTDOWN})
PATIENCE: Final = 1.0
"""Seconds that the core may take to say why a channel has failed; it takes none."""
CONNECTIONS: Final = 3
"""How often a channel is connected if its server takes it and leaves at once, as one does that is being replaced."""


@final
class ChannelWorker(PoolWorker[CoreChannel]):
    """Connects, watches and closes channels; for `PooledChannel`, or alone for `nimblepool.open_pool`.

    A channel that is lost, or told by its server to go away, takes no new call and is closed when its calls have ended:
    those that run on it are not cut. Those that wait until it is ready again (``wait_for_ready``) stay on it, and are
    sent when the core has reconnected it, which it tries every 0.15 seconds unless ``options`` say otherwise.

    Args:
        target: the server, as gRPC names it: ``host:port``, ``dns:///...``, ``unix:...``.
        credentials: what `grpc.ssl_channel_credentials` and its like make; plain text without.
        options: channel arguments, which stand above the defaults of this adapter.
        compression: how to compress requests, unless a call says otherwise.
        calls_per_channel: calls at a time on one channel: at most half of what the server allows (often 100), for it
            counts calls that have just ended, and calls beyond that fail.
        health_service: the service whose health is checked before a channel is lent, and watched while it lives; empty
            for the server as a whole; ``None`` for no checks. A server without the protocol counts as healthy.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument has a value that is not allowed.
    """

    def __init__(
        self,
        target: str,
        *,
        credentials: ChannelCredentials | None = None,
        options: Options = (),
        compression: Compression | None = None,
        calls_per_channel: int = 50,
        health_service: str | None = None,
    ) -> None:
        check_text("target", target, "the name of a server, like 'host:port'")
        check_optional("credentials", credentials, ChannelCredentials, "grpc.ChannelCredentials")
        check_optional("compression", compression, Compression, "a grpc.Compression")
        check_optional("health_service", health_service, str, "the name of a service")
        check_count("calls_per_channel", calls_per_channel)
        self._target = target
        self._credentials = credentials
        self._options = channel_arguments(options)
        self._compression = compression
        self._calls_per_channel = calls_per_channel
        self._health = None if health_service is None else Health(health_service)
        self.connectivity = Connectivity()

    def __repr__(self) -> str:
        return f"ChannelWorker({self._target!r})"

    async def init(self) -> CoreChannel:
        channel = CoreChannel(
            self._target, options=self._options, credentials=self._credentials, compression=self._compression
        )
        try:
            with self.connectivity.connecting(channel):
                await _connect(channel)
                if self._health is not None:
                    await self._health.check(channel)
        except BaseException:
            channel.close()
            raise
        return channel

    async def terminate(self, resource: CoreChannel, reason: Reason) -> None:
        self.connectivity.lost(resource)
        resource.close()

    async def watch(self, resource: CoreChannel) -> None:
        try:
            if self._health is None:
                await _stays_ready(resource)
            else:
                await _first_failure(partial(_stays_ready, resource), partial(self._health.watch, resource))
        finally:
            self.connectivity.lost(resource)

    def capacity(self, resource: CoreChannel) -> int:
        return self._calls_per_channel


async def _connect(channel: CoreChannel) -> None:
    for _ in range(CONNECTIONS):
        state = await channel.connected()
        if state is READY:
            return
        if state in LOST:
            raise await _failure(channel)
    raise ChannelFailed(f"the server ended {CONNECTIONS} connections as soon as they were made")


async def _first_failure(*watches: Callable[[], Awaitable[None]]) -> None:
    """Run ``watches`` together, and raise what the first of them to fail raises."""
    failures: list[ChannelFailed] = []

    async def run(watch: Callable[[], Awaitable[None]]) -> None:
        try:
            await watch()
        except ChannelFailed as error:
            failures.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for watch in watches:
            nursery.start_soon(run, watch)
    raise failures[0]


async def _stays_ready(channel: CoreChannel) -> None:
    """Raise when ``channel`` is not connected any more.

    One that is idle has lost its connection, or was told to go away: it would connect again, at its own pace.
    """
    state = await channel.wait_for_change(READY)
    raise ChannelFailed(f"the channel is no longer connected: {state.name}")


async def _failure(channel: CoreChannel) -> ChannelFailed:
    """Return the core's own words for why ``channel`` failed: those that a call would get now."""
    call = channel.call(CHECK, wait_for_ready=False)
    with trio.move_on_after(PATIENCE):
        await call.unary_unary(b"", ())
    status = call.status_now
    if status is None or status.code in {StatusCode.OK, StatusCode.UNIMPLEMENTED}:  # it has connected meanwhile
        return ChannelFailed("the channel could not be connected")
    return ChannelFailed(status.details, status.debug_error_string)
