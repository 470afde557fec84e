"""The situations that the clients of a pool bring about."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, Generic, TypeVar, final

import trio

from .books import check_books
from .deadlines import DEADLINES

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from nimblepool._pool import Pool

    from .recorder import Recorder

R = TypeVar("R")

MOMENT: Final = 0.001
"""Seconds: long enough to be pinged after it, or to have queued."""
_PATIENCE: Final = 2 * (DEADLINES["init"] + DEADLINES["ping"] + DEADLINES["reset"])
"""Seconds in which a checkout succeeds if all callbacks meet their deadlines."""


class BodyError(Exception):
    """What a client raises."""


@final
class Situations(Generic[R]):
    """Takes a pool through what its clients do."""

    def __init__(self, recorder: Recorder[R], pool: Pool[R], request: object) -> None:
        self._recorder = recorder
        self._pool = pool
        self._request = request

    async def go_through(self, cycles: int) -> None:
        """Bring each situation about, ``cycles`` times."""
        for _ in range(cycles):
            await self._lend_two()
            await self._fail_a_body()
            await self._cancel_a_body()
            await self._cancel_in_the_queue()
            await self._reset_after_use()
            await self._fail_a_ping()
            check_books(self._pool)
        await self._lend_two()

    @asynccontextmanager
    async def _lease(self) -> AsyncGenerator[R]:
        async with self._pool.checkout(self._request, timeout=_PATIENCE) as lease:
            yield lease.resource

    async def _lend_two(self) -> None:
        """Prove that all the pool has can be lent."""
        async with self._lease() as one, self._lease() as another:
            if one is another and not self._recorder.is_shared:
                raise self._recorder.broken("init", "returned what is in use", "return a new resource every time")

    async def _fail_a_body(self) -> None:
        with suppress(BodyError):
            async with self._lease():
                raise BodyError

    async def _cancel_a_body(self) -> None:
        with trio.CancelScope() as scope:
            async with self._lease():
                scope.cancel()
                await trio.lowlevel.checkpoint()

    async def _cancel_in_the_queue(self) -> None:
        self._pool.pause()
        with trio.move_on_after(MOMENT):
            await self._pool.acquire(self._request, timeout=_PATIENCE)
        self._pool.resume()

    async def _reset_after_use(self) -> None:
        self._recorder.asks_for_reset = True
        async with self._lease():
            pass
        await self._lend_two()

    async def _fail_a_ping(self) -> None:
        await trio.sleep(2 * MOMENT)
        self._recorder.fails_ping = True
        async with self._lease():
            pass
        self._recorder.fails_ping = False
