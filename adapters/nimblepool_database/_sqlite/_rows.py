"""The rows of a statement that is half-way."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, final

from . import _statements

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nimblepool_database._resource import Parameters, Row

Attempt = Callable[[Callable[[sqlite3.Connection], "list[Any]"]], Awaitable["list[Any]"]]


@final
class SQLiteRows:
    """An asynchronous iterator over an open cursor, fetched a batch at a time.

    `open`, `finish` and `close` run in the connection's thread.

    Args:
        attempt: runs a function in that thread, interruptibly.
        batch: rows to fetch at a time.
    """

    def __init__(self, attempt: Attempt, batch: int) -> None:
        self._attempt = attempt
        self._batch = batch
        self._cursor: sqlite3.Cursor | None = None
        self._fetched: Iterator[Row] = iter(())
        self._exhausted = False

    @property
    def is_open(self) -> bool:
        """Whether there is a cursor to close."""
        return self._cursor is not None

    def open(self, connection: sqlite3.Connection, sql: str, params: Parameters) -> None:
        """Run the statement and fetch the first batch."""
        self._cursor = _statements.open_cursor(connection, sql, params)
        self._keep(self._fetch(connection))

    def finish(self, _: sqlite3.Connection, sql: str) -> None:
        """Let the statement come to its end, and close the cursor."""
        cursor, self._cursor = self._cursor, None
        if cursor is not None:
            _statements.finish(cursor, sql)

    def close(self) -> None:
        """Close the cursor, wherever it is."""
        cursor, self._cursor = self._cursor, None
        if cursor is not None:
            cursor.close()

    def __aiter__(self) -> SQLiteRows:
        return self

    async def __anext__(self) -> Any:  # noqa: ANN401 - whatever the row factory makes
        while True:
            for row in self._fetched:
                return row
            if self._exhausted:
                raise StopAsyncIteration
            self._keep(await self._attempt(self._fetch))

    def _fetch(self, _: sqlite3.Connection) -> list[Row]:
        if self._cursor is None:
            raise sqlite3.OperationalError("interrupted: a statement of the same connection was cancelled")
        rows = self._cursor.fetchmany(self._batch)
        if len(rows) < self._batch:
            self.close()
        return rows

    def _keep(self, rows: list[Row]) -> None:
        self._fetched = iter(rows)
        self._exhausted = len(rows) < self._batch
