"""The transactions on one leased connection, nested as deep as their blocks.

The outermost block is a transaction, from BEGIN to COMMIT or ROLLBACK; every block inside another one is a savepoint.
Both are plain statements of the driver's `DatabaseResource`, so that all drivers share what is decided here. Databases
end savepoints in the reverse order of their beginning and take those that were set later with them: two tasks
that share a connection can break that order, and hear of it.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, final

from nimblepool import LeaseExpired

from ._errors import TransactionLost
from ._resource import check_isolation

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ._holding import Holding
    from ._resource import DatabaseResource, Isolation


@final
class _Transaction:
    """The outermost block."""

    def __init__(self, isolation: Isolation | None, *, readonly: bool) -> None:
        self.begun = False
        self._isolation: Isolation | None = isolation
        self._readonly = readonly

    async def begin(self, resource: DatabaseResource) -> None:
        await resource.begin(self._isolation, readonly=self._readonly)

    async def keep(self, resource: DatabaseResource) -> None:
        await resource.commit()

    async def undo(self, resource: DatabaseResource) -> None:
        await resource.rollback()


@final
class _Savepoint:
    """A block inside another one."""

    def __init__(self, depth: int) -> None:
        self.begun = False
        self._name = f"nimblepool_{depth}"

    async def begin(self, resource: DatabaseResource) -> None:
        await resource.savepoint(self._name)

    async def keep(self, resource: DatabaseResource) -> None:
        await resource.release(self._name)

    async def undo(self, resource: DatabaseResource) -> None:
        await resource.rollback_to(self._name)


@final
class Nesting:
    """The blocks that are open on one leased connection.

    Invariants:
        _open[0] is a _Transaction, all others are _Savepoint; only the last may be not begun yet
    """

    __slots__ = ("_held", "_open")

    def __init__(self, held: Holding) -> None:
        self._held = held
        self._open: list[_Transaction | _Savepoint] = []

    @asynccontextmanager
    async def block(self, isolation: Isolation | None = None, *, readonly: bool = False) -> AsyncGenerator[None, None]:
        """Run the block in a transaction, or in a savepoint within it: kept at its end, undone on any exception.

        A block that got to its end is kept even under a pending cancellation; that comes out at the next checkpoint,
        not here, so that whoever sees `trio.Cancelled` come out knows that the block counts for nothing.
        """
        resource = self._held.resource
        level = self._following(isolation, readonly=readonly)
        await self._begin(level, resource)
        try:
            yield
            self._check_last(level)
            # Asked again: a lease that the pool has ended meanwhile refuses.
            await level.keep(self._held.resource)
        except BaseException:
            await self._undo(level)
            raise
        finally:
            self._forget(level)

    def _following(self, isolation: Isolation | None, *, readonly: bool) -> _Transaction | _Savepoint:
        check_isolation(isolation)
        if not self._open:
            return _Transaction(isolation, readonly=readonly)
        if isolation is not None or readonly:
            raise ValueError("isolation and readonly belong to the outermost transaction; this one is inside another")
        if not self._open[-1].begun:
            raise RuntimeError(
                "another task is just opening a transaction on this connection; give each task a connection of its own"
            )
        return _Savepoint(len(self._open))

    async def _begin(self, level: _Transaction | _Savepoint, resource: DatabaseResource) -> None:
        self._open.append(level)
        try:
            await level.begin(resource)
            level.begun = True
        except BaseException:
            self._forget(level)
            raise

    def _check_last(self, level: _Transaction | _Savepoint) -> None:
        if level not in self._open:
            raise TransactionLost("the transaction around this one has ended, and this one with it")
        if self._open[-1] is not level:
            raise RuntimeError(
                "a transaction ended before one that was begun inside it, and both were undone; "
                "give each task a connection of its own"
            )

    async def _undo(self, level: _Transaction | _Savepoint) -> None:
        try:
            resource = self._held.resource
        except LeaseExpired:
            # Whoever ended the lease resets or closes the connection, which may be somebody else's by now.
            return
        if level in self._open:
            await level.undo(resource)

    def _forget(self, level: _Transaction | _Savepoint) -> None:
        if level in self._open:
            del self._open[self._open.index(level) :]
