"""What is done with one cursor, in the connection's thread; every cursor is closed where it was made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nimblepool_database._resource import Parameters, Row

CHUNK = 1000
"""Sets of parameters that a driver gets at a time, so that a cancellation need not wait for all of them."""
DRAIN = 1000
"""Rows that nobody wants are read so many at a time."""
BLANK = r"(?:\s|--[^\n]*\n|/\*.*?\*/)*"
PLAIN_READ = re.compile(BLANK + r"(select|values|show|table)\b", re.IGNORECASE | re.DOTALL)
CHANGE = re.compile(BLANK + r"(insert|update|delete|merge|replace)\b", re.IGNORECASE | re.DOTALL)


class Stopped(Exception):  # noqa: N818 - nobody sees it: the cancellation comes out
    """The work was asked to stop between two steps."""


def run(cursor: Any, sql: str, params: Parameters) -> None:  # noqa: ANN401
    """Execute one statement. Without parameters a driver leaves ``%`` in the text alone."""
    if params:
        cursor.execute(sql, params)
    else:
        cursor.execute(sql)


def execute(cursor: Any, sql: str, params: Parameters) -> int:  # noqa: ANN401
    """Run one statement to its end; return how many rows it changed."""
    with closing(cursor):
        run(cursor, sql, params)
        # Some count only when the rows have been read.
        _exhaust(cursor)
        return _changed(cursor, sql)


def execute_many(cursor: Any, sql: str, rows: Sequence[Parameters], stopping: Callable[[], bool]) -> int:  # noqa: ANN401
    """Run one statement for every one of ``rows``; return how many rows they changed."""
    changed = 0
    with closing(cursor):
        for start in range(0, len(rows), CHUNK):
            if stopping():
                raise Stopped
            cursor.executemany(sql, rows[start : start + CHUNK])
            changed += _count(cursor)
    return changed


def fetch_all(cursor: Any, sql: str, params: Parameters) -> list[Row]:  # noqa: ANN401
    """Run one statement; return its rows."""
    with closing(cursor):
        run(cursor, sql, params)
        return [] if cursor.description is None else list(cursor.fetchall())


def fetch_one(cursor: Any, sql: str, params: Parameters) -> Row | None:  # noqa: ANN401
    """Run one statement; return its first row."""
    with closing(cursor):
        run(cursor, sql, params)
        row = None if cursor.description is None else cursor.fetchone()
        # Some write with the last step only, which closing would leave out; a plain read may stop here.
        if not PLAIN_READ.match(sql):
            _exhaust(cursor)
        return row


def first_column(row: Row | None) -> Any:  # noqa: ANN401
    """Return the first column of a row, which may be a tuple or a mapping."""
    if row is None:
        return None
    values: Any = cast("Mapping[str, Any]", row).values() if isinstance(row, Mapping) else row
    return next(iter(values))


def command(cursor: Any, sql: str) -> str | None:  # noqa: ANN401
    """Run a statement that gives no rows; return what the server called it, where the driver says so."""
    with closing(cursor):
        cursor.execute(sql)
        return getattr(cursor, "statusmessage", None)


def _exhaust(cursor: Any) -> None:  # noqa: ANN401
    while cursor.description is not None and cursor.fetchmany(DRAIN):
        pass


def _changed(cursor: Any, sql: str) -> int:  # noqa: ANN401
    # A row count of a statement with rows may be theirs; PostgreSQL's drivers repeat what kind of statement it was.
    kind = getattr(cursor, "statusmessage", None) or sql
    if cursor.description is not None and not CHANGE.match(kind):
        return 0
    return _count(cursor)


def _count(cursor: Any) -> int:  # noqa: ANN401
    # -1, or None with some drivers, where nobody has counted.
    return max(int(cursor.rowcount or 0), 0)
