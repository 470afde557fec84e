"""What the adapter asks of one connection of any driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")

Parameters: TypeAlias = Sequence[Any] | Mapping[str, Any]
"""The values for a statement's placeholders: in their order, or by name."""

Row: TypeAlias = tuple[Any, ...]
"""One row of an answer."""


class DatabaseResource(Protocol):
    """One connection to a database, of whatever driver: the pool's resource, and what `Connection` speaks to.

    The methods mean what `Connection` says of those of the same name. Each may be cancelled at any point: it then
    leaves a connection that is usable, or one that the worker's ``checkin`` removes.
    """

    @property
    def raw(self) -> Any:  # noqa: ANN401 - each driver has a type of its own
        """The driver's own connection."""

    async def execute(self, sql: str, params: Parameters = ()) -> int:
        """Run one statement; return how many rows it changed."""
        ...

    async def execute_many(self, sql: str, rows: Iterable[Parameters]) -> int:
        """Run one statement for every set of parameters, all or none; return how many rows they changed."""
        ...

    async def fetch_all(self, sql: str, params: Parameters = ()) -> list[Row]:
        """Run one statement; return its rows."""
        ...

    async def fetch_one(self, sql: str, params: Parameters = ()) -> Row | None:
        """Run one statement; return its first row."""
        ...

    async def call(self, fn: Callable[..., T], *args: Any) -> T:  # noqa: ANN401 - whatever fn takes
        """Run ``fn(raw, *args)`` where the driver's connection may be used."""
        ...

    async def begin(self) -> None:
        """Open a transaction; leave none open if that fails."""

    async def commit(self) -> None:
        """Commit it. Shielded, except while nothing is decided yet; after an error it is to be rolled back.

        Raises:
            TransactionLost: there is no transaction left to commit.
            CommitUnknown: the deadline of the commit ran out.
        """

    async def rollback(self) -> None:
        """Undo the transaction, if one is open. Shielded, under a deadline.

        Raises nothing: a connection that cannot roll back is marked, so that ``checkin`` removes it.
        """
