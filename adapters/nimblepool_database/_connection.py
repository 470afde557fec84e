"""What a client holds while it leases a database connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from nimblepool import Lease

    from ._resource import DatabaseResource, Parameters, Row

T = TypeVar("T")


@final
class Connection:
    """A leased connection; made by `Database.connection` and `Database.transaction`.

    Every method raises `nimblepool.LeaseExpired` once the block that gave the connection has ended, and the driver's
    own errors as they are. Cancelling a method breaks the statement off in the database and lets
    `trio.Cancelled` out once the connection is no longer in use; outside a transaction the statement was then done
    wholly or not at all.

    Tasks may share the connection: their statements run one after the other.
    """

    __slots__ = ("_lease",)

    def __init__(self, lease: Lease[DatabaseResource]) -> None:
        self._lease = lease

    @property
    def raw(self) -> Any:  # noqa: ANN401 - each driver has a type of its own
        """The driver's connection: for SQLite a `sqlite3.Connection`, usable only inside `call`."""
        return self._lease.resource.raw

    async def execute(self, sql: str, params: Parameters = ()) -> int:
        """Run one statement and return how many rows it inserted, updated or deleted; 0 for any other statement.

        Rows that the statement returns are read to the end and dropped.

        Args:
            sql: one statement, with the driver's placeholders (SQLite: ``?`` or ``:name``).
            params: the values for them, in order or by name.
        """
        return await self._lease.resource.execute(sql, params)

    async def execute_many(self, sql: str, rows: Iterable[Parameters]) -> int:
        """Run one changing statement for each of ``rows``, and return how many rows were changed in all.

        All of them happen or none: also outside a transaction, and also when cancelled or when one row fails.
        """
        return await self._lease.resource.execute_many(sql, rows)

    async def fetch_all(self, sql: str, params: Parameters = ()) -> list[Row]:
        """Run one statement and return its rows as tuples; an empty list if it returns none."""
        return await self._lease.resource.fetch_all(sql, params)

    async def fetch_one(self, sql: str, params: Parameters = ()) -> Row | None:
        """Run one statement and return its first row, or ``None`` if it returns none."""
        return await self._lease.resource.fetch_one(sql, params)

    async def fetch_value(self, sql: str, params: Parameters = ()) -> Any:  # noqa: ANN401 - whatever the column holds
        """Run one statement and return the first column of its first row, or ``None`` if it returns none."""
        row = await self.fetch_one(sql, params)
        return None if row is None else row[0]

    async def call(self, fn: Callable[..., T], *args: Any) -> T:  # noqa: ANN401 - whatever fn takes
        """Run ``fn(raw, *args)``, a plain function, in the connection's thread, and return its result.

        For what the driver alone can do: ``backup``, ``create_function``, ``blobopen``. Close every cursor it opens.
        Cancelling interrupts the statement that runs at that moment, and waits for ``fn`` to return.
        """
        return await self._lease.resource.call(fn, *args)
