"""A stub of an HTTP/1.1 connection, for the pools of httpcore and httpcore2.

Stubbed: the connection that `AsyncConnectionPool` makes by its method ``create_connection``. It answers the pool's
questions from two flags; the original asks its state, its clock and its socket. A request that reaches it while it is
busy is refused with ``ConnectionNotAvailable``, as the original refuses it: the pool then queues the request again.

Fair: the pool itself is untouched, runs on trio, which costs it less than asyncio through anyio, and is used by its own
entry, ``handle_async_request``. The request and the answer's headers are made once.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import trio

from benchmarks.contender import Contender

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.contender import Client

URL = "http://stub/"


class StubConnection:
    """An HTTP/1.1 connection that is idle or busy, and the stream of its answer as well."""

    def __init__(self, httpcore: Any) -> None:  # noqa: ANN401 - one of two peers
        self._busy = False
        self._response = httpcore.Response
        self._unavailable = httpcore.ConnectionNotAvailable

    async def handle_async_request(self, _request: object) -> object:
        """Become busy and answer."""
        if self._busy:
            raise self._unavailable
        self._busy = True
        return self._response(200, content=self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Become idle: the pool closes the answer's stream, which this is too."""
        self._busy = False

    def can_handle_request(self, _origin: object) -> bool:
        """Tell whether it leads there."""
        return True

    def can_multiplex(self) -> bool:
        """Tell whether it is HTTP/2."""
        return False

    def is_available(self) -> bool:
        """Tell whether it takes a request."""
        return not self._busy

    def is_idle(self) -> bool:
        """Tell whether nobody uses it."""
        return not self._busy

    def is_connected(self) -> bool:
        """Tell whether it is open."""
        return True

    def is_closed(self) -> bool:
        """Tell whether it is closed."""
        return False

    def has_expired(self) -> bool:
        """Tell whether it is too old or the server has left."""
        return False


@asynccontextmanager
async def _open_pool(httpcore: Any, size: int) -> AsyncGenerator[Client]:  # noqa: ANN401 - one of two peers
    async with httpcore.AsyncConnectionPool(max_connections=size) as pool:
        pool.create_connection = lambda _origin: StubConnection(httpcore)
        request = httpcore.Request("GET", URL)
        checkpoint = trio.lowlevel.checkpoint

        async def client(leases: int) -> None:
            for _ in range(leases):
                response = await pool.handle_async_request(request)
                try:
                    await checkpoint()
                finally:
                    await response.aclose()

        yield client


def make_contender(httpcore: Any) -> Contender:  # noqa: ANN401 - one of two peers
    """Return the contender that is ``httpcore``."""
    return Contender("trio", partial(_open_pool, httpcore))
