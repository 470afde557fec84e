"""A pool of channels, as stubs see it."""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Final, cast, final

import trio
from grpc import ChannelConnectivity

from nimblepool import DEFAULT, Backoff, PoolError, PoolOptions, open_pool

from ._check import check_count
from ._errors import RpcUnavailable, in_grpcs_words
from ._interceptors import Interceptors
from ._leased_channel import LeasedChannel
from ._pool_route import PoolRoute
from ._route import PAUSE
from ._stub_channel import StubChannel
from ._tasks import open_task_group
from ._worker import ChannelWorker

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType
    from typing import Any, Self, Unpack

    from grpc import ChannelCredentials, Compression
    from grpc.aio import ClientInterceptor

    from nimblepool import Default, Pool, PoolStats

    from ._core import CoreChannel
    from ._types import Options

BACKOFF: Final = Backoff(base=0.05, cap=1.0)
NOT_OURS: Final = {
    "max_size": "say channels=",
    "max_hold": "a call has its own timeout=, and a stream lasts as long as it lasts",
    "ping_every": "say health_service=, or set the channel argument grpc.keepalive_time_ms",
    "ping_batch": "say health_service=, or set the channel argument grpc.keepalive_time_ms",
    "ping_after": "say health_service=, or set the channel argument grpc.keepalive_time_ms",
    "ping_timeout": "set the channel argument grpc.keepalive_timeout_ms",
    "reset_timeout": "nothing is done to a channel when a call has ended",
    "on_death": "calls on a channel that was lost fail by themselves, and those on one that drains may end",
}


@final
class PooledChannel(StubChannel):
    """Several channels to one server, which a generated stub takes for one: ``GreeterStub(channel)``.

    ```python
    async with PooledChannel("localhost:50051") as channel:
        stub = GreeterStub(channel)
        reply = await stub.SayHello(HelloRequest(name="you"))
    ```

    Each channel is a TCP connection of its own. A call takes the one with the fewest calls; another is connected when
    all that there are carry ``calls_per_channel``. Stubs may be made before the block; calls are made inside. Leaving
    the block waits for the calls of other tasks, ``close_grace`` or 5 seconds at most, and then cancels them. After
    that it can be entered again.

    Args:
        target: the server, as gRPC names it: ``host:port``, ``dns:///...``, ``unix:...``.
        channels: at most so many channels.
        credentials: what `grpc.ssl_channel_credentials` and its like make; plain text without.
        options: channel arguments, as for `grpc.aio.insecure_channel`; they stand above the defaults of this adapter.
        interceptors: instances of grpc.aio's four classes of client interceptors, the outermost first. They are awaited
            on trio, in the task that uses the call first.
        compression: how to compress requests, unless a call says otherwise.
        calls_per_channel: calls at a time on one channel: at most half of what the server allows (often 100), for it
            counts calls that have just ended, and calls beyond that fail.
        health_service: the service whose health is checked before a channel is lent, and watched while it lives; empty
            for the server as a whole; ``None`` for no checks. A server without the protocol counts as healthy.
        **pool_options: the options of `nimblepool.open_pool`. ``name`` is the target by default, ``max_opening`` 1, so
            that a burst waits for the first channel to connect, and ``on_open_failure`` is ``"each"``: every call may
            try to connect. ``max_size``, ``max_hold``, ``on_death``,
            ``reset_timeout`` and those of pings make no sense here.

    Raises:
        ValueError: an argument has a value that is not allowed.
        TypeError: an argument does not exist, or is of the wrong type.
    """

    def __init__(
        self,
        target: str,
        channels: int = 4,
        *,
        credentials: ChannelCredentials | None = None,
        options: Options = (),
        interceptors: Iterable[ClientInterceptor] | None = None,
        compression: Compression | None = None,
        calls_per_channel: int = 50,
        health_service: str | None = None,
        **pool_options: Unpack[PoolOptions],
    ) -> None:
        self._worker = ChannelWorker(
            target,
            credentials=credentials,
            options=options,
            compression=compression,
            calls_per_channel=calls_per_channel,
            health_service=health_service,
        )
        self._options = _pool_options(target, channels, pool_options)
        # Not entered: the call checks the options.
        open_pool(self._worker, **self._options)
        self._pool_route = PoolRoute(self._worker.connectivity)
        self._opened: AsyncExitStack | None = None
        super().__init__(self._pool_route, Interceptors(interceptors))

    async def __aenter__(self) -> Self:
        """Open the pool; channels are connected when they are needed, or at once as ``min_size`` says."""
        try:
            trio.lowlevel.current_task()
        except RuntimeError:
            raise RuntimeError("a PooledChannel runs on trio, and this is no task of trio's") from None
        if self._opened is not None:
            raise RuntimeError("this PooledChannel is open already: one `async with` at a time")
        async with AsyncExitStack() as stack:
            self._opened = stack
            stack.callback(self._has_closed)
            nursery = await stack.enter_async_context(open_task_group())
            stack.callback(self._pool_route.close)
            pool = await stack.enter_async_context(open_pool(self._worker, **self._options))
            stack.callback(self._pool_route.cancel_own)
            self._pool_route.open(pool, nursery)
            self._worker.connectivity.opened()
            self._opened = stack.pop_all()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """Wait for other tasks' calls, ``close_grace`` or 5 seconds at most; cancel the rest; close every channel."""
        assert self._opened is not None, "bug: left without having been entered"
        return await self._opened.__aexit__(exc_type, exc, traceback)

    def _has_closed(self) -> None:
        self._opened = None
        self._worker.connectivity.closed()

    @property
    def pool(self) -> Pool[CoreChannel]:
        """The pool of channels, for what only a pool can do (``resize``, ``drain``). It is closed after the block.

        Raises:
            nimblepool.PoolClosed: before the block.
        """
        return self._pool_route.pool

    @property
    def stats(self) -> PoolStats:
        """The pool's figures: its resources are channels, its leases are calls."""
        return self.pool.stats

    def lease(self, *, timeout: float | Default | None = DEFAULT) -> LeasedChannel:
        """Lease one channel to the block: ``async with channel.lease() as leased: stub = GreeterStub(leased)``.

        Args:
            timeout: seconds to wait for it; ``None`` for no limit; by default ``checkout_timeout``.

        Raises:
            RpcUnavailable: no channel could be connected; raised when the block is entered, like the others.
            RpcCheckoutTimeout: none had room in time.
            grpc.aio.AioRpcError: the pool refuses for another reason.
        """
        return LeasedChannel(self._pool_route, self._interceptors, timeout, repr(self._worker))

    async def wait_ready(self, n: int | None = None) -> None:
        """Wait until ``n`` channels are connected, by default ``min_size`` or 1; see `nimblepool.Pool.wait_ready`.

        Raises:
            RpcUnavailable: one could not be connected.
            ValueError: ``n`` is more than there may be.
        """
        with in_grpcs_words():
            await self.pool.wait_ready(n)

    def refresh(self, spread: float = 0.0) -> None:
        """Replace every channel, over ``spread`` seconds; calls that run on them may end. After a deployment, say."""
        self.pool.refresh(spread)

    # The rest of grpc.aio's channel

    async def close(self, grace: float | None = None) -> None:  # noqa: ARG002 - grpc.aio's
        """Close it before the end of the block, in the same way. ``grace`` is ignored: see ``close_grace``."""
        self._pool_route.cancel_own()
        await self.pool.close()
        self._worker.connectivity.closed()

    def get_state(self, try_to_connect: bool = False) -> ChannelConnectivity:
        """Return READY if any channel is connected, and so on down; SHUTDOWN outside the block."""
        if try_to_connect and self._pool_route.is_open:
            self._pool_route.start_soon(self._try_to_connect)
        return self._worker.connectivity.state

    async def wait_for_state_change(self, last_observed_state: ChannelConnectivity) -> None:
        """Wait until the state is another one."""
        await self._worker.connectivity.wait_for_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait, as long as it takes, until a channel is connected."""
        while self._worker.connectivity.state is not ChannelConnectivity.READY:
            try:
                await self.wait_ready(1)
            except RpcUnavailable as error:
                await trio.sleep(max(error.retry_after, PAUSE))

    async def _try_to_connect(self) -> None:
        with suppress(PoolError):
            await self.pool.wait_ready(1)

    def __repr__(self) -> str:
        return f"<PooledChannel: {self._worker!r}, {'open' if self._opened is not None else 'not open'}>"


def _pool_options(target: str, channels: object, given: Mapping[str, Any]) -> PoolOptions:
    if not isinstance(channels, int):
        raise TypeError(f"channels must be a whole number, not {type(channels).__name__} (say credentials=, options=)")
    check_count("channels", channels)
    for name, words in NOT_OURS.items():
        if name in given:
            raise TypeError(f"a PooledChannel has no option {name!r}: {words}")
    defaults = {"name": target, "max_size": channels, "max_opening": 1, "on_open_failure": "each", "backoff": BACKOFF}
    return cast("PoolOptions", {**defaults, **given})
