"""What sends the requests of an iterator."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterable, Generator
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Generic, cast, final

import trio

from ._core import CallEnded
from ._types import Q

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._core import CoreCall
    from ._types import Requests, Serialize

ITERATOR_FAILED = "The iterator of requests has failed!"
logger = logging.getLogger("nimblepool")


@final
class Feeder(Generic[Q]):
    """Sends what an iterator yields as one RPC's requests, until the iterator or the RPC ends.

    It does not refer to the call itself, so that one can be noticed which nobody has any more.
    """

    def __init__(self, core: CoreCall, requests: Requests[Q], serialize: Serialize[Q]) -> None:
        self._core = core
        self._requests = requests
        self._serialize = serialize
        self._scope = trio.CancelScope()
        self.error: Exception | None = None
        """What the iterator, or the serialiser, has raised."""
        self._is_told = False
        core.add_done_callback(self._scope.cancel)

    def raise_error(self) -> None:
        """Raise what the iterator has raised, if it has, once: after that it is the cause of what the call raises."""
        if self.error is not None and not self._is_told:
            self._is_told = True
            raise self.error

    def __del__(self) -> None:
        if self.error is not None and not self._is_told:
            logger.error("an iterator of requests has failed, and nobody has asked for a response", exc_info=self.error)

    async def run(self) -> None:
        """Send everything; an iterator that raises ends the RPC."""
        try:
            with self._scope:
                await self._send_all()
        except CallEnded:
            pass
        except Exception as error:  # noqa: BLE001 - it is raised to whoever waits for a response
            self.error = error
            self._core.cancel(ITERATOR_FAILED)

    async def _send_all(self) -> None:
        requests = self._requests
        if isinstance(requests, AsyncGenerator):
            async with aclosing(cast("AsyncGenerator[Q]", requests)) as generator:
                await self._send_each(generator)
        elif isinstance(requests, AsyncIterable):
            await self._send_each(requests)
        elif isinstance(requests, Generator):
            with closing(cast("Generator[Q]", requests)) as generator:
                await self._send_every(generator)
        else:
            await self._send_every(requests)
        await self._core.half_close()

    async def _send_every(self, requests: Iterable[Q]) -> None:
        for request in requests:
            await self._core.send(self._serialize(request))

    async def _send_each(self, requests: AsyncIterable[Q]) -> None:
        async for request in requests:
            await self._core.send(self._serialize(request))
