"""Where the tasks that want to write wait for each other."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, final

import trio

from ._errors import SQLiteBusy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Hashable


@final
class WriterQueue:
    """The right to write to one database file, given to one connection at a time, first come, first served.

    SQLite has one writer at a time anyhow, but its own waiting is a polling race that blocks a thread and is lost by
    whoever sleeps longest. A connection enters the queue only while it is leased and holds nothing else, so the queue
    cannot wait for the pool.
    """

    def __init__(self) -> None:
        self._turn = trio.CapacityLimiter(1)
        self._holder: tuple[str, float] = ("", 0.0)

    async def enter(self, connection: Hashable, patience: float) -> None:
        """Wait for the right to write, on behalf of ``connection``.

        Not a checkpoint if nobody else has it.

        Raises:
            SQLiteBusy: it was not to be had within ``patience`` seconds.
        """
        try:
            self._turn.acquire_on_behalf_of_nowait(connection)
        except trio.WouldBlock:
            await self._wait(connection, patience)
        self._holder = (trio.lowlevel.current_task().name, trio.current_time())

    def leave(self, connection: Hashable) -> None:
        """Give the right up, if ``connection`` has it."""
        if self.holds(connection):
            self._turn.release_on_behalf_of(connection)

    def holds(self, connection: Hashable) -> bool:
        """Tell whether ``connection`` has the right to write."""
        return connection in self._turn.statistics().borrowers

    @asynccontextmanager
    async def turn(self, connection: Hashable, patience: float) -> AsyncGenerator[None, None]:
        """Have the right to write within the block; a connection that has it already keeps it after the block."""
        if self.holds(connection):
            yield
            return
        await self.enter(connection, patience)
        try:
            yield
        finally:
            self.leave(connection)

    async def _wait(self, connection: Hashable, patience: float) -> None:
        with trio.move_on_after(patience):
            await self._turn.acquire_on_behalf_of(connection)
            return
        task, since = self._holder
        held = trio.current_time() - since
        raise SQLiteBusy(
            f"database is locked: waited {patience:g} s for a writer of this pool (task {task!r}, writing for "
            f"{held:.1f} s); if that is the waiting task itself, use the transaction's own connection"
        )
