"""What the adapter asks of one connection of any driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol, TypeAlias, get_args

from ._errors import Unsupported

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from contextlib import AbstractAsyncContextManager

Parameters: TypeAlias = Sequence[Any] | Mapping[str, Any]
"""The values for a statement's placeholders: in their order, or by name."""

Row: TypeAlias = Any
"""One row of an answer: whatever the driver's row factory makes; a tuple by default."""

Isolation: TypeAlias = Literal["read uncommitted", "read committed", "repeatable read", "serializable"]
"""How much a transaction sees of others that run beside it. A database that gives more than was asked is right, too."""

ISOLATIONS: tuple[str, ...] = get_args(Isolation)


class DatabaseResource(Protocol):
    """One connection to a database, of whatever driver: the pool's resource, and what `Connection` speaks to.

    A driver's class inherits this one. The methods mean what `Connection` says of those of the same name. Each may be
    cancelled at any point: it then leaves a connection that is usable, or one that the worker's ``checkin`` removes.

    Attributes:
        database: the name of the database, for errors: ``"SQLite"``.
    """

    database: str

    @property
    def raw(self) -> Any:  # noqa: ANN401 - each driver has a type of its own
        """The driver's own connection."""

    async def execute(self, sql: str, params: Parameters = ()) -> int:
        """Run one statement; return how many rows it changed, 0 for a statement that changes none."""
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

    async def fetch_value(self, sql: str, params: Parameters = ()) -> Any:  # noqa: ANN401 - whatever the column holds
        """Run one statement; return the first column of its first row, whatever the row factory makes of rows."""
        ...

    def stream(
        self, sql: str, params: Parameters = (), *, batch: int
    ) -> AbstractAsyncContextManager[AsyncIterator[Row]]:
        """Run one statement; let its rows be read within the block, ``batch`` at a time. Leaving closes the cursor."""
        ...

    async def call(self, fn: Callable[..., Any], *args: Any) -> Any:  # noqa: ANN401 - whatever fn takes and returns
        """Run ``fn(raw, *args)`` where the driver's connection may be used; await it where the driver is native."""
        ...

    async def begin(self, isolation: Isolation | None = None, *, readonly: bool = False) -> None:
        """Open a transaction; leave none open if that fails. Refuse if one is open already."""

    async def commit(self) -> None:
        """Commit it. Shielded, except while nothing is decided yet; after an error it is to be rolled back.

        Raises:
            TransactionLost: there is no transaction left to commit.
            CommitUnknown: the deadline of the commit ran out, or the connection was lost in the middle of it.
        """

    async def rollback(self) -> None:
        """Undo the transaction, if one is open. Shielded, under a deadline.

        Raises nothing: a connection that cannot roll back is marked, so that ``checkin`` removes it.
        """

    async def savepoint(self, name: str) -> None:
        """Set a savepoint within the transaction; leave none set if that fails.

        Args:
            name: made by the adapter, of letters, digits and underscores.
        """

    async def release(self, name: str) -> None:
        """Give the savepoint up and keep what was done since. Shielded, under the deadline of a commit."""

    async def rollback_to(self, name: str) -> None:
        """Undo what was done since the savepoint, and give it up. Shielded, under a deadline.

        Raises nothing: where it cannot be done the transaction is lost, and says so at the next statement or commit.
        """

    def copy(self, sql: str, params: Parameters = ()) -> AbstractAsyncContextManager[Any]:  # noqa: ARG002 - refuses
        """Run a COPY; yield the driver's object to read from or write to. By default refused."""
        _refuse("copy()", self.database)

    def pipeline(self) -> AbstractAsyncContextManager[Any]:
        """Send the block's statements without waiting for the answers in between. By default refused."""
        _refuse("pipeline()", self.database)


def check_isolation(isolation: str | None) -> None:
    """Refuse what is not an isolation level: it becomes a part of a statement.

    Raises:
        ValueError: the text says what is allowed.
    """
    if isolation is not None and isolation not in ISOLATIONS:
        allowed = ", ".join(map(repr, ISOLATIONS))
        raise ValueError(f"isolation must be one of {allowed}, or None for the database's own, not {isolation!r}")


def unsupported(what: str, database: str) -> Unsupported:
    """Make the error for something that a database cannot do."""
    return Unsupported(f"{what} is not supported by {database}")


def _refuse(what: str, database: str) -> NoReturn:
    # A method that raises NotImplementedError itself would count as abstract with type checkers.
    raise unsupported(what, database)
