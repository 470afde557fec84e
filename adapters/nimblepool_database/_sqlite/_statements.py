"""What runs in the connection's thread: plain functions over a `sqlite3.Connection`, each one hop.

A cursor left open would pin the write-ahead log and keep an autocommitted statement from committing, so every
function leaves its own closed.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from nimblepool_database._resource import Parameters, Row

    from ._options import SQLiteOptions

BUSY_SLICE = 0.005
"""Seconds that SQLite itself waits for a lock: it cannot be interrupted meanwhile, so the long wait is trio's."""

PLAIN_READ = re.compile(r"\s*(select|values)\b", re.IGNORECASE)


def connect(path: str) -> sqlite3.Connection:
    """Open a connection that begins no transaction by itself."""
    return sqlite3.connect(path, timeout=BUSY_SLICE, isolation_level=None)


def set_up(connection: sqlite3.Connection, options: SQLiteOptions) -> str:
    """Apply ``options``; return the journal mode that the database is in then."""
    execute(connection, f"PRAGMA foreign_keys = {'ON' if options.foreign_keys else 'OFF'}")
    wanted = "" if options.journal_mode is None else f" = {options.journal_mode}"
    mode = fetch_value(connection, f"PRAGMA journal_mode{wanted}")
    connection.row_factory = options.row_factory
    return str(mode)


def execute(connection: sqlite3.Connection, sql: str, params: Parameters = ()) -> int:
    """Run one statement to its end; return how many rows it changed."""
    with closing(connection.execute(sql, params)) as cursor:
        _exhaust(cursor)
        return max(cursor.rowcount, 0)


def execute_many(connection: sqlite3.Connection, sql: str, rows: list[Parameters], stopping: Callable[[], bool]) -> int:
    """Run one statement for every one of ``rows``, or for none; return how many rows they changed."""
    with _all_or_none(connection), closing(connection.executemany(sql, _until(stopping, rows))) as cursor:
        return max(cursor.rowcount, 0)


def fetch_all(connection: sqlite3.Connection, sql: str, params: Parameters = ()) -> list[Row]:
    """Run one statement; return its rows."""
    with closing(connection.execute(sql, params)) as cursor:
        return cursor.fetchall()


def fetch_one(connection: sqlite3.Connection, sql: str, params: Parameters = ()) -> Row | None:
    """Run one statement; return its first row."""
    with closing(connection.execute(sql, params)) as cursor:
        return _first(cursor, sql)


def fetch_value(connection: sqlite3.Connection, sql: str, params: Parameters = ()) -> Any:  # noqa: ANN401 - a column
    """Run one statement; return the first column of its first row."""
    with closing(connection.cursor()) as cursor:
        # Only a tuple has a first column whatever the connection's row factory.
        cursor.row_factory = None
        row = _first(cursor.execute(sql, params), sql)
    return None if row is None else row[0]


def open_cursor(connection: sqlite3.Connection, sql: str, params: Parameters) -> sqlite3.Cursor:
    """Run one statement up to its first row; whoever reads on closes the cursor."""
    return connection.execute(sql, params)


def finish(cursor: sqlite3.Cursor, sql: str) -> None:
    """Read what a statement that is not a plain read has left, so that its failure is heard, and close it."""
    with closing(cursor):
        if not PLAIN_READ.match(sql):
            _exhaust(cursor)


def begin(connection: sqlite3.Connection) -> None:
    """Open a transaction with the right to write: nothing in it can then find the database locked."""
    execute(connection, "BEGIN IMMEDIATE")


def begin_readonly(connection: sqlite3.Connection) -> None:
    """Open a transaction that sees one state of the file and cannot write."""
    execute(connection, "PRAGMA query_only = ON")
    execute(connection, "BEGIN")


def commit(connection: sqlite3.Connection) -> None:
    """Commit the open transaction."""
    execute(connection, "COMMIT")


def commit_readonly(connection: sqlite3.Connection) -> None:
    """End the transaction that `begin_readonly` began."""
    commit(connection)
    allow_writing(connection)


def rollback(connection: sqlite3.Connection) -> None:
    """Undo the open transaction, if there is one: an interrupted statement may have ended it."""
    if connection.in_transaction:
        execute(connection, "ROLLBACK")


def allow_writing(connection: sqlite3.Connection) -> None:
    """End what `begin_readonly` began."""
    execute(connection, "PRAGMA query_only = OFF")


def rollback_to(connection: sqlite3.Connection, name: str) -> None:
    """Undo what was done since a savepoint, and give it up."""
    execute(connection, f"ROLLBACK TO {name}")
    execute(connection, f"RELEASE {name}")


def _first(cursor: sqlite3.Cursor, sql: str) -> Row | None:
    row: Row | None = cursor.fetchone()
    # A statement that writes commits with its last step; were that left to the closing of the cursor, its failure
    # would go unheard. A plain read may stop here.
    if not PLAIN_READ.match(sql):
        _exhaust(cursor)
    return row


def _exhaust(cursor: sqlite3.Cursor) -> None:
    for _ in cursor:
        pass


def _until(stopping: Callable[[], bool], rows: Iterable[Parameters]) -> Iterator[Parameters]:
    # SQLite forgets an interrupt between two statements, and short statements are mostly "between".
    for row in rows:
        if stopping():
            raise sqlite3.OperationalError("interrupted")
        yield row


@contextmanager
def _all_or_none(connection: sqlite3.Connection) -> Generator[None, None, None]:
    around = _SAVEPOINT if connection.in_transaction else _TRANSACTION
    execute(connection, around.open)
    try:
        yield
        execute(connection, around.keep)
    except BaseException:
        # What interrupted the block may have ended the transaction with it.
        if connection.in_transaction:
            for sql in around.undo:
                _execute_whatever_interrupts(connection, sql)
        raise


class _Around(NamedTuple):
    open: str
    keep: str
    undo: tuple[str, ...]


_TRANSACTION = _Around("BEGIN IMMEDIATE", "COMMIT", ("ROLLBACK",))
_SAVEPOINT = _Around(
    "SAVEPOINT nimblepool_many", "RELEASE nimblepool_many", ("ROLLBACK TO nimblepool_many", "RELEASE nimblepool_many")
)


def _execute_whatever_interrupts(connection: sqlite3.Connection, sql: str) -> None:
    # A repeated interrupt that hits the undoing would leave it undone.
    while True:
        try:
            execute(connection, sql)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
        else:
            return
