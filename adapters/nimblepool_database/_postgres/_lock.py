"""The lock of a connection: one task at a time may talk to the server."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, final

import trio
from trio.lowlevel import current_task

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


@final
class ConnectionLock:
    """A fair lock that costs no checkpoint while it is free, and that any task may release.

    `trio.Lock` will not do: psycopg holds the lock across the ``yield`` of its asynchronous generators (`stream`,
    `notifies`), and one that was abandoned is closed, and its lock released, by a task of trio's own. Acquiring a free
    lock need not be a checkpoint either, because the wait that follows is one.

    Invariant: while there is a keeper it holds the lock, however often it enters.
    """

    def __init__(self) -> None:
        self._free = trio.Semaphore(1, max_value=1)
        self._keeper: trio.lowlevel.Task | None = None

    def locked(self) -> bool:
        """Tell whether a task holds the lock."""
        return self._free.value == 0

    @asynccontextmanager
    async def kept(self) -> AsyncGenerator[None]:
        """Keep other tasks' statements out of a block of several; the task itself goes on as ever."""
        if self._is_keeper():
            yield
            return
        async with self:
            self._keeper = current_task()
            try:
                yield
            finally:
                self._keeper = None

    async def __aenter__(self) -> None:
        if self._is_keeper():
            return
        try:
            self._free.acquire_nowait()
        except trio.WouldBlock:
            await self._free.acquire()

    async def __aexit__(self, *_: object) -> None:
        if self._keeper is None:
            self._free.release()

    def _is_keeper(self) -> bool:
        return self._keeper is not None and self._keeper is current_task()
