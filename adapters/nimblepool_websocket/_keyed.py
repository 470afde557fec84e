"""Many servers, each reached through pools of its own."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, final

from nimblepool import DEFAULT, Default, KeyedPool, KeyedStats, PoolOptions, open_keyed_pool

from ._hub import Hub
from ._leased import LeasedSocket
from ._plan import Plan
from ._shared_worker import SharedWorker
from ._worker import WebSocketWorker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager
    from typing import Unpack

    from websockets.typing import Data, DataLike

    from ._asking import Checkout
    from ._correlate import Correlate
    from ._shared_worker import SharedSocket
    from ._socket import Socket


@final
class KeyedWebSockets:
    """The sockets to many servers, by URI; made by `open_keyed_websockets`.

    There is no ``subscribe``: a subscription keeps a socket open, and a URI that nobody uses is closed here.
    """

    def __init__(self, exclusive: KeyedPool[str, Socket], shared: KeyedPool[str, SharedSocket], plan: Plan) -> None:
        self._exclusive = exclusive
        self._shared = shared
        self._plan = plan

    @property
    def stats(self) -> KeyedStats[str]:
        """The figures of the leased sockets, by URI."""
        return self._exclusive.stats

    @property
    def shared_stats(self) -> KeyedStats[str]:
        """The figures of the shared sockets, by URI."""
        return self._shared.stats

    def connection(self, uri: str, *, timeout: float | Default | None = DEFAULT) -> LeasedSocket:
        """Lease a socket to ``uri`` to the block; see `WebSockets.connection`.

        Raises:
            ValueError: the URI is not valid; raised when the block is entered.
        """
        return LeasedSocket(self._exclusive.checkout(uri, timeout=timeout))

    async def request(
        self, uri: str, message: DataLike, *, timeout: float | Default | None = DEFAULT, retry: bool = True
    ) -> Data:
        """Send ``message`` to ``uri``, and return the reply; see `WebSockets.request`."""
        return await self._plan.asker.request(self._checkout(uri), message, timeout=timeout, retry=retry)

    async def send(self, uri: str, message: DataLike, *, timeout: float | Default | None = DEFAULT) -> None:
        """Send ``message`` to ``uri``; see `WebSockets.send`."""
        await self._plan.asker.send(self._checkout(uri), message, timeout=timeout)

    def _checkout(self, uri: str) -> Checkout:
        return lambda limit: self._shared.checkout(uri, timeout=limit)


def open_keyed_websockets(
    make_worker: Callable[[str], WebSocketWorker] = WebSocketWorker,
    *,
    correlate: Correlate | None = None,
    shared_size: int = 1,
    max_in_flight: int = 1000,
    request_timeout: float = 30.0,
    max_total: int | None = None,
    key_idle: float | None = None,
    **options: Unpack[PoolOptions],
) -> AbstractAsyncContextManager[KeyedWebSockets]:
    """Open pools of sockets for each URI that is asked for; leaving the block closes them all.

    Args:
        make_worker: returns the worker for a URI; a function that does not allow it raises.
        correlate: as for `open_websockets`.
        shared_size: at most so many shared sockets for each URI.
        max_in_flight: requests at a time on one shared socket.
        request_timeout: seconds that a request may take.
        max_total: at most so many leased sockets under all URIs together, and as many shared ones; ``None``: no limit.
        key_idle: seconds after which the sockets of an unused URI are closed; ``None`` for never.
        **options: those of `nimblepool.open_pool`, for each URI. A worker with a ``close_timeout`` above 4 seconds
            needs a longer ``terminate_timeout`` than 5.

    Raises:
        ValueError: an option has a value that is not allowed.
        TypeError: an option does not exist, or is of the wrong type.
    """
    plan = Plan(
        correlate,
        shared_size=shared_size,
        max_in_flight=max_in_flight,
        request_timeout=request_timeout,
        options=options,
    )

    def make_shared(uri: str) -> SharedWorker:
        return SharedWorker(make_worker(uri), plan.correlator, Hub(), max_in_flight)

    exclusive = open_keyed_pool(make_worker, max_total=max_total, key_idle=key_idle, **plan.exclusive)
    shared = open_keyed_pool(make_shared, max_total=max_total, key_idle=key_idle, **plan.shared)
    return _open(exclusive, shared, plan)


@asynccontextmanager
async def _open(
    exclusive: AbstractAsyncContextManager[KeyedPool[str, Socket]],
    shared: AbstractAsyncContextManager[KeyedPool[str, SharedSocket]],
    plan: Plan,
) -> AsyncGenerator[KeyedWebSockets]:
    async with exclusive as leased, shared as sharing:
        yield KeyedWebSockets(leased, sharing, plan)
