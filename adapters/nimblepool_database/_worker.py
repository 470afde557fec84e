"""What a driver brings to `Database`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from nimblepool import PoolWorker

from ._resource import DatabaseResource, unsupported

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

S = TypeVar("S", bound=DatabaseResource)


class DatabaseWorker(PoolWorker[S]):
    """A `PoolWorker` whose resources are database connections: all that `Database` needs to know about a driver.

    Attributes:
        database: the name of the database, for errors: ``"SQLite"``.
    """

    database: str = "this database"

    def pool_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options to open the pool with: those the user gave, and this database's own defaults.

        Raises:
            ValueError: an option that this database cannot live with.
        """
        return dict(given)

    def reader(self) -> DatabaseWorker[Any] | None:
        """Return the worker for all connections but one, where a database has one writer beside many readers.

        This worker then opens the one that writes. ``None``, the default: every connection does everything.
        """
        return None

    def listen(self, channels: Sequence[str]) -> AbstractAsyncContextManager[AsyncIterator[Any]]:
        """Open a connection beside the pool and yield what is notified on ``channels``, at least one."""
        raise unsupported("listen()", self.database)
