"""What a driver brings to `Database`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from nimblepool import PoolWorker

from ._resource import DatabaseResource

if TYPE_CHECKING:
    from collections.abc import Mapping

S = TypeVar("S", bound=DatabaseResource)


class DatabaseWorker(PoolWorker[S]):
    """A `PoolWorker` whose resources are database connections: all that `Database` needs to know about a driver."""

    def pool_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options to open the pool with: those the user gave, and this database's own defaults.

        Raises:
            ValueError: an option that this database cannot live with.
        """
        return dict(given)
