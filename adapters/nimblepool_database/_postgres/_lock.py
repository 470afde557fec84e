"""The lock of a connection: one task at a time may talk to the server."""

from __future__ import annotations

from typing import final

import trio


@final
class ConnectionLock:
    """A fair lock that costs no checkpoint while it is free, and that any task may release.

    `trio.Lock` will not do: psycopg holds the lock across the ``yield`` of its asynchronous generators (`stream`,
    `notifies`), and one that was abandoned is closed, and its lock released, by a task of trio's own. Acquiring a free
    lock need not be a checkpoint either, because the wait that follows is one.
    """

    def __init__(self) -> None:
        self._free = trio.Semaphore(1, max_value=1)

    def locked(self) -> bool:
        """Tell whether a task holds the lock."""
        return self._free.value == 0

    async def __aenter__(self) -> None:
        try:
            self._free.acquire_nowait()
        except trio.WouldBlock:
            await self._free.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._free.release()
