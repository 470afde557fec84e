"""What a client holds while it leases a database connection."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, final

from ._rows import LeasedRows
from ._transaction import Nesting

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
    from contextlib import AbstractAsyncContextManager

    from ._holding import Holding
    from ._resource import Isolation, Parameters, Row

DEFAULT_BATCH = 500
"""Rows that a stream fetches at a time."""


@final
class Connection:
    """A leased connection; made by `Database.connection` and `Database.transaction`.

    Every method raises `nimblepool.LeaseExpired` once the block that gave the connection has ended, and the driver's
    own errors as they are. Cancelling a method breaks the statement off in the database and lets
    `trio.Cancelled` out once the connection is no longer in use; outside a transaction the statement was then done
    wholly or not at all.

    Tasks may share the connection: their statements run one after the other. Transactions they should not share, nor,
    with PostgreSQL, a stream outside one, which is a transaction itself.
    """

    __slots__ = ("_held", "_nesting")

    def __init__(self, held: Holding) -> None:
        self._held = held
        self._nesting = Nesting(held)

    @property
    def raw(self) -> Any:  # noqa: ANN401 - each driver has a type of its own
        """The driver's connection: for SQLite a `sqlite3.Connection`, usable only inside `call`."""
        return self._held.resource.raw

    @asynccontextmanager
    async def transaction(
        self, *, isolation: Isolation | None = None, readonly: bool = False
    ) -> AsyncGenerator[Connection, None]:
        """Run the block in a transaction, or, inside another one, in a savepoint; yields this connection.

        The block is kept if it comes to its end. On any exception it is undone, and the exception comes out as it is;
        if it is caught outside the inner block, the outer one goes on as if the inner one had not been.

        Args:
            isolation: see `Database.transaction`; for the outermost transaction only.
            readonly: likewise.

        Raises:
            TransactionLost: the transaction was gone before the block ended; nothing it did counts.
            CommitUnknown: COMMIT got no answer; the connection is removed.
            ValueError: ``isolation`` or ``readonly`` inside another transaction, or an unknown isolation.
            RuntimeError: another task's transaction on this connection is in the way.
        """
        async with self._nesting.block(isolation, readonly=readonly):
            yield self

    async def execute(self, sql: str, params: Parameters = ()) -> int:
        """Run one statement and return how many rows it inserted, updated or deleted; 0 for any other statement.

        Rows that the statement returns are read to the end and dropped.

        Args:
            sql: one statement, with the driver's placeholders (SQLite: ``?`` or ``:name``; psycopg: ``%s`` or
                ``%(name)s``).
            params: the values for them, in order or by name.
        """
        return await self._held.resource.execute(sql, params)

    async def execute_many(self, sql: str, rows: Iterable[Parameters]) -> int:
        """Run one changing statement for each of ``rows``, and return how many rows were changed in all.

        All of them happen or none: also outside a transaction, and also when cancelled or when one row fails.
        """
        return await self._held.resource.execute_many(sql, rows)

    async def fetch_all(self, sql: str, params: Parameters = ()) -> list[Row]:
        """Run one statement and return its rows, each as the driver's row factory makes it; a tuple by default."""
        return await self._held.resource.fetch_all(sql, params)

    async def fetch_one(self, sql: str, params: Parameters = ()) -> Row | None:
        """Run one statement and return its first row, or ``None`` if it returns none."""
        return await self._held.resource.fetch_one(sql, params)

    async def fetch_value(self, sql: str, params: Parameters = ()) -> Any:  # noqa: ANN401 - whatever the column holds
        """Run one statement and return the first column of its first row, or ``None`` if it returns none."""
        return await self._held.resource.fetch_value(sql, params)

    @asynccontextmanager
    async def stream(
        self, sql: str, params: Parameters = (), *, batch: int = DEFAULT_BATCH
    ) -> AsyncGenerator[AsyncIterator[Row], None]:
        """Run one statement and read its rows in the block: ``async with conn.stream(...) as rows: async for ...``.

        ``batch`` rows are in memory at a time. Leaving the block closes the cursor, however many rows were read, and
        the rows refuse afterwards with `nimblepool.LeaseExpired`. Fetching a batch is a checkpoint; the rows between
        are not. With PostgreSQL a stream outside a transaction is one: what else is done on the connection meanwhile
        is committed with the end of the block, and undone with an exception.

        Args:
            sql: as in `execute`.
            params: as in `execute`.
            batch: rows to fetch at a time, at least 1.
        """
        if batch < 1:
            raise ValueError(f"batch must be at least 1 row, not {batch!r}")
        async with self._held.resource.stream(sql, params, batch=batch) as rows:
            leased = LeasedRows(self._held, rows)
            try:
                yield leased
            finally:
                leased.end()

    def copy(self, sql: str, params: Parameters = ()) -> AbstractAsyncContextManager[Any]:
        """Run a COPY and yield the driver's object to read from or to write to (psycopg's ``AsyncCopy``).

        Raises:
            Unsupported: the database has no COPY.
        """
        return self._held.resource.copy(sql, params)

    def pipeline(self) -> AbstractAsyncContextManager[Any]:
        """Send the block's statements without waiting for each answer; yields the driver's pipeline, if it has one.

        Raises:
            Unsupported: the database has no pipeline.
        """
        return self._held.resource.pipeline()

    async def call(self, fn: Callable[..., Any], *args: Any) -> Any:  # noqa: ANN401 - whatever fn takes and returns
        """Run ``fn(raw, *args)`` and return its result: for what the driver alone can do.

        With a blocking driver (SQLite: ``backup``, ``create_function``, ``blobopen``) ``fn`` is a plain function and
        runs in the connection's thread; with psycopg it is asynchronous. Close every cursor it opens. Cancelling
        interrupts the statement that runs at that moment, and waits for ``fn`` to return.
        """
        return await self._held.resource.call(fn, *args)
