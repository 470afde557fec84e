"""Many servers, each reached through pools of its own."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast, final

from nimblepool import DEFAULT, Default, KeyedPool, KeyedStats, PoolOptions, open_keyed_pool

from ._address import Address
from ._asking import Asker
from ._closing import closing_together
from ._hub import Hub
from ._leased import LeasedSocket
from ._plan import Plan
from ._shared_worker import SharedWorker
from ._worker import WebSocketWorker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Hashable
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

    def __init__(
        self, exclusive: KeyedPool[Address, Socket], shared: KeyedPool[Address, SharedSocket], plan: Plan
    ) -> None:
        self._exclusive = exclusive
        self._shared = shared
        self._asker = Asker(plan.correlator, plan.request_timeout)

    @property
    def stats(self) -> KeyedStats[Hashable]:
        """The figures of the leased sockets: ``stats[uri]``.

        A key equals its URI; as text it leaves out user, password and query.
        """
        return cast("KeyedStats[Hashable]", self._exclusive.stats)

    @property
    def shared_stats(self) -> KeyedStats[Hashable]:
        """The figures of the shared sockets, likewise."""
        return cast("KeyedStats[Hashable]", self._shared.stats)

    def connection(self, uri: str, *, timeout: float | Default | None = DEFAULT) -> LeasedSocket:
        """Lease a socket to ``uri`` to the block; see `WebSockets.connection`.

        Raises:
            ValueError: the URI is not valid; raised when the block is entered.
        """
        return LeasedSocket(self._exclusive.checkout(Address(uri), timeout=timeout))

    async def request(
        self,
        uri: str,
        message: DataLike,
        *,
        timeout: float | Default | None = DEFAULT,
        retry: bool = True,
        text: bool | None = None,
    ) -> Data:
        """Send ``message`` to ``uri``, and return the reply; see `WebSockets.request`."""
        return await self._asker.request(self._checkout(uri), message, timeout=timeout, retry=retry, text=text)

    async def send(
        self, uri: str, message: DataLike, *, timeout: float | Default | None = DEFAULT, text: bool | None = None
    ) -> None:
        """Send ``message`` to ``uri``; see `WebSockets.send`."""
        await self._asker.send(self._checkout(uri), message, timeout=timeout, text=text)

    def _checkout(self, uri: str) -> Checkout:
        key = Address(uri)
        return lambda limit: self._shared.checkout(key, timeout=limit)


def open_keyed_websockets(
    make_worker: Callable[[str], WebSocketWorker] = WebSocketWorker,
    *,
    correlate: Correlate | None = None,
    shared_size: int = 1,
    shared_min_size: int = 0,
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
        shared_min_size: so many of these are kept open without being asked for, once there was a request.
        max_in_flight: requests at a time on one shared socket.
        request_timeout: seconds that a request may take.
        max_total: at most so many leased sockets under all URIs together, and as many shared ones; ``None``: no limit.
        key_idle: seconds after which the sockets of an unused URI are closed; ``None`` for never.
        **options: as for `open_websockets`, for each URI. The workers' own timeouts are not known here: one with a
            ``close_timeout`` above 4 seconds needs a longer ``terminate_timeout`` than 5, and one with an
            ``open_timeout`` above 30 a longer ``init_timeout``.

    Raises:
        ValueError: an option has a value that is not allowed.
        TypeError: an option does not exist, or is of the wrong type.
    """
    plan = Plan(
        correlate,
        shared_size=shared_size,
        shared_min_size=shared_min_size,
        max_in_flight=max_in_flight,
        request_timeout=request_timeout,
        options=options,
        shared={},
    )

    def make(key: Address) -> WebSocketWorker:
        return make_worker(key.uri)

    def make_shared(key: Address) -> SharedWorker:
        return SharedWorker(make_worker(key.uri), plan.correlator, Hub(), plan.max_in_flight)

    exclusive = open_keyed_pool(make, max_total=max_total, key_idle=key_idle, **plan.exclusive)
    shared = open_keyed_pool(make_shared, max_total=max_total, key_idle=key_idle, **plan.shared)
    return _opened_keyed(exclusive, shared, plan)


@asynccontextmanager
async def _opened_keyed(
    exclusive: AbstractAsyncContextManager[KeyedPool[Address, Socket]],
    shared: AbstractAsyncContextManager[KeyedPool[Address, SharedSocket]],
    plan: Plan,
) -> AsyncGenerator[KeyedWebSockets]:
    async with exclusive as leased, shared as sharing, closing_together(leased, sharing):
        yield KeyedWebSockets(leased, sharing, plan)
