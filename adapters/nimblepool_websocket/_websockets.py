"""One server, reached through pools of sockets."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, final

import trio

from nimblepool import DEFAULT, CheckoutTimeout, Default, Pool, PoolOptions, PoolStats, open_pool

from ._asking import Asker
from ._check import check_callable, check_count, seconds
from ._closing import closing_together
from ._hub import Hub
from ._keeping import KeptOpen
from ._leased import LeasedSocket
from ._plan import Plan, worker_from
from ._shared_worker import SharedWorker
from ._subscription import OVERFLOWS, Overflow, Subscription

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager
    from typing import Unpack

    from websockets.typing import Data, DataLike

    from nimblepool import Lease

    from ._correlate import Correlate
    from ._shared_worker import SharedSocket
    from ._socket import Socket
    from ._worker import WebSocketWorker


@final
class WebSockets:
    """The sockets to one server; made by `open_websockets`.

    `connection` leases a socket to one client. `request`, `send` and `subscribe` share a few sockets of their own, by
    default one. Both kinds are opened when they are first needed, unless ``min_size`` or ``shared_min_size`` says
    otherwise.
    """

    def __init__(self, exclusive: Pool[Socket], shared: Pool[SharedSocket], hub: Hub, plan: Plan) -> None:
        self._exclusive = exclusive
        self._shared = shared
        self._hub = hub
        self._asker = Asker(plan.correlator, plan.request_timeout)
        self._kept_open = KeptOpen(shared, plan.shared_size)
        self._checkout_timeout = plan.checkout_timeout

    @property
    def pool(self) -> Pool[Socket]:
        """The pool behind `connection`."""
        return self._exclusive

    @property
    def shared_pool(self) -> Pool[SharedSocket]:
        """The pool behind `request`, `send` and `subscribe`."""
        return self._shared

    @property
    def stats(self) -> PoolStats:
        """The figures of `pool`; those of the shared sockets are ``shared_pool.stats``."""
        return self._exclusive.stats

    def connection(self, *, timeout: float | Default | None = DEFAULT) -> LeasedSocket:
        """Lease a socket to the block: ``async with sockets.connection() as ws``.

        A socket that comes back with something unread, in mid-message, or from a block that failed or was cancelled, is
        removed, or given to the worker's ``resync``. Whatever the server sends to a socket that rests is unread, too.

        Args:
            timeout: seconds for all of queueing and opening; ``None`` for no limit; by default ``checkout_timeout``.

        Raises:
            nimblepool.CheckoutTimeout: none was free in time.
            nimblepool.PoolUnavailable: none could be opened; its cause says why.
            nimblepool.PoolError: the pool refuses for another reason.
        """
        return LeasedSocket(self._exclusive.checkout(timeout=timeout))

    async def request(
        self,
        message: DataLike,
        *,
        timeout: float | Default | None = DEFAULT,
        retry: bool = True,
        text: bool | None = None,
    ) -> Data:
        """Send ``message`` over a shared socket, and return the reply that ``correlate`` finds.

        Cancelling it is safe at any moment: a request that was not sent never is, and the reply to one that was sent is
        dropped when it comes.

        Args:
            message: what is sent; ``correlate`` gets it as it is, but all kinds of bytes as ``bytes``.
            timeout: seconds for all of it, queueing, opening and the reply; ``None`` for no limit; by default
                ``request_timeout``.
            retry: whether a request that had not been sent when its socket was lost is sent on another. One that had
                been sent is never sent again.
            text: whether it goes as text (bytes in UTF-8, such as a JSON library makes) or as binary; by default
                ``str`` as text, and bytes as binary.

        Raises:
            RequestLost: the socket was lost first, or the pool closed and ``close_grace`` is over; ``was_sent`` says
                whether the server may have acted on it.
            RequestTimeout: the reply did not come in time; ``was_sent`` likewise.
            nimblepool.CheckoutTimeout: no socket had room in time; nothing was sent.
            nimblepool.PoolUnavailable: none could be opened; nothing was sent.
            ValueError: ``message`` has no id, or one that is in flight already, or is to go as text and is not UTF-8.
            TypeError: there is no ``correlate``, or ``message`` is neither text nor bytes.
        """
        return await self._asker.request(self._checkout, message, timeout=timeout, retry=retry, text=text)

    async def send(
        self, message: DataLike, *, timeout: float | Default | None = DEFAULT, text: bool | None = None
    ) -> None:
        """Send ``message`` over a shared socket, and return when it was handed to the network.

        Args:
            message: what is sent.
            timeout: as for `request`.
            text: as for `request`.

        Raises:
            RequestLost: the socket was lost while it was sent.
            ValueError: ``message`` is to go as text, and is not UTF-8.
            RequestTimeout: it could not be sent in time.
            nimblepool.PoolError: as `request`.
        """
        await self._asker.send(self._checkout, message, timeout=timeout, text=text)

    @asynccontextmanager
    async def subscribe(
        self,
        match: Callable[[Data], object] | None = None,
        *,
        buffer: int = 100,
        overflow: Overflow = "drop_oldest",
        timeout: float | Default | None = DEFAULT,
    ) -> AsyncGenerator[Subscription]:
        """Read what comes on the shared sockets unasked: ``async with sockets.subscribe() as messages``.

        During the block all shared sockets are kept open, and opened again when they are lost. To have the server send
        anything again after that, subscribe there in the worker's ``on_open``.

        Args:
            match: which messages; a plain function, called for each. By default all.
            buffer: how many messages may wait to be read.
            overflow: when one more comes: ``"drop_oldest"``; ``"close"`` ends the subscription with `SlowSubscriber`;
                ``"wait"`` reads no more from the socket, so that the server feels it. Then replies on that socket wait
                as well, and so do pongs: a wait of more than ``ping_timeout`` costs the socket. Once a socket is lost,
                nothing waits: what had been read from it may be more than ``buffer``.
            timeout: seconds to wait until a socket is open; by default ``checkout_timeout``.

        Raises:
            nimblepool.CheckoutTimeout: no socket was open in time.
            nimblepool.PoolUnavailable: none could be opened.
            ValueError: ``buffer`` or ``overflow`` is not allowed.
        """
        check_callable("match", match)
        check_count("buffer", buffer)
        if overflow not in OVERFLOWS:
            raise ValueError(f"overflow must be {' or '.join(map(repr, OVERFLOWS))}, not {overflow!r}")
        subscription = Subscription(match, buffer, overflow)
        limit = seconds(timeout, self._checkout_timeout)
        self._hub.join(subscription)
        self._kept_open.begin()
        try:
            await self._wait_open(limit)
            yield subscription
        finally:
            self._hub.leave(subscription)
            self._kept_open.end()

    def __repr__(self) -> str:
        return f"<WebSockets: {self._exclusive!r}, {self._shared!r}>"

    def _checkout(self, limit: float) -> Lease[SharedSocket]:
        return self._shared.checkout(timeout=limit)

    async def _wait_open(self, limit: float) -> None:
        with trio.move_on_after(limit) as scope:
            await self._shared.wait_ready(1)
        if scope.cancelled_caught:
            raise CheckoutTimeout(f"pool {self._shared.name!r}: no socket was open within {limit:g} s")


def open_websockets(
    source: str | WebSocketWorker,
    *,
    correlate: Correlate | None = None,
    shared: str | WebSocketWorker | None = None,
    shared_size: int = 1,
    shared_min_size: int = 0,
    max_in_flight: int = 1000,
    request_timeout: float = 30.0,
    **options: Unpack[PoolOptions],
) -> AbstractAsyncContextManager[WebSockets]:
    """Open pools of sockets to one server; leaving the block closes them all.

    ```python
    async with open_websockets("wss://host/path", correlate=JSONRPC()) as sockets:
        async with sockets.connection() as ws:
            await ws.send("hello")
    ```

    The call itself checks the options. Every socket is closed with 1000, within its ``close_timeout``.

    Args:
        source: a URI, or a worker: ``WebSocketWorker("wss://host/path", additional_headers=...)``.
        correlate: how `WebSockets.request` finds the reply to a request: `JSONRPC`, or a function that returns the id
            in a message (``None``: it has none), or an object with ``request_id`` and ``reply_id``.
        shared: another URI or worker for the shared sockets, where they need another ``on_open`` or other options.
        shared_size: at most so many shared sockets; the next is opened when ``max_in_flight`` is reached on all. With
            more than one, each that is open gets its own copy of what the server sends to everybody.
        shared_min_size: so many shared sockets are kept open without being asked for.
        max_in_flight: requests at a time on one shared socket; more than that wait for one to end.
        request_timeout: seconds that `WebSockets.request` and `WebSockets.send` may take.
        **options: those of `nimblepool.open_pool`, for both pools; but ``min_size``, ``max_size``, ``max_uses``,
            ``max_hold`` and ``on_death`` are only for the sockets that are leased. Without ``init_timeout`` and
            ``terminate_timeout`` these follow the worker's ``open_timeout`` and ``close_timeout``.

    Raises:
        ValueError: the URI or an option has a value that is not allowed.
        TypeError: an option does not exist, or is of the wrong type.
    """
    worker = worker_from(source)
    sharing = worker if shared is None else worker_from(shared)
    plan = Plan(
        correlate,
        shared_size=shared_size,
        shared_min_size=shared_min_size,
        max_in_flight=max_in_flight,
        request_timeout=request_timeout,
        options=worker.pool_options(options),
        shared=_timeouts_of(sharing, options),
    )
    return _opened(worker, sharing, plan)


def _timeouts_of(worker: WebSocketWorker, options: PoolOptions) -> dict[str, Any]:
    """Return the pool's timeouts that the worker needs and the user has not named."""
    return {name: value for name, value in worker.pool_options({}).items() if name not in options}


@asynccontextmanager
async def _opened(worker: WebSocketWorker, shared: WebSocketWorker, plan: Plan) -> AsyncGenerator[WebSockets]:
    hub = Hub()
    sharing = SharedWorker(shared, plan.correlator, hub, plan.max_in_flight)
    async with (
        open_pool(worker, **plan.exclusive) as exclusive,
        open_pool(sharing, **plan.shared) as pool,
        closing_together(exclusive, pool, first=hub.close),
    ):
        yield WebSockets(exclusive, pool, hub, plan)
