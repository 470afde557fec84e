"""DuckDB through `DBAPIWorker`.

A process has one instance of DuckDB for a file, however often it connects: each connection is a session of that
instance, made for one thread. What DuckDB calls a cursor is a session, too, with transactions of its own; so the
statements of a connection go through the connection itself, which holds one answer at a time.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from nimblepool import Verdict
from nimblepool_database._resource import unsupported

from ._import import driver
from ._statements import CHANGE, PLAIN_READ
from ._worker import DBAPIWorker, FileWorker, OneConnectionWorker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from duckdb import DuckDBPyConnection

    from nimblepool_database._resource import Isolation, Parameters

RETURNING = re.compile(r"\breturning\b", re.IGNORECASE)


def duckdb_worker(
    path: str | os.PathLike[str],
    *,
    commit_timeout: float = 10.0,
    cancel_timeout: float = 5.0,
    **options: Any,  # noqa: ANN401 - whatever connect takes
) -> DBAPIWorker[DuckDBPyConnection]:
    """Make a worker for a DuckDB database.

    DuckDB has snapshot isolation, which is enough for all levels but ``"serializable"``, and no savepoints: a
    transaction inside another one is `Unsupported`. Any failed or cancelled statement ends its transaction. While a
    stream is open, its connection can do nothing else.

    Args:
        path: the file; a relative one is taken from the present working directory, once. ``":memory:"`` is a database
            that each connection has to itself, so its pool has one.
        commit_timeout: of `DBAPIWorker`, in seconds.
        cancel_timeout: likewise.
        **options: of `duckdb.connect` (``read_only``, ``config``). All connections of a process to one file must agree
            on them.

    Raises:
        ModuleNotFoundError: duckdb is not installed.
    """
    duckdb = driver("duckdb", "duckdb")
    name = os.fspath(path) or ":memory:"
    in_memory = name == ":memory:"
    if not in_memory and not name.startswith((":memory:", "md:", "motherduck:")):
        name = str(Path(name).absolute())
    make = OneConnectionWorker["DuckDBPyConnection"] if in_memory else FileWorker["DuckDBPyConnection"]
    return make(
        partial(duckdb.connect, name, **options),
        autocommit=_has_it_always,
        cancel=duckdb.DuckDBPyConnection.interrupt,
        begin=_begin,
        rollback=partial(_rollback, duckdb.TransactionException),
        savepoints=False,
        cursor=DuckDBCursor,
        stream_alone=True,
        judge=partial(_judge, (duckdb.ConnectionException, duckdb.FatalException)),
        error=duckdb.OperationalError,
        commit_timeout=commit_timeout,
        cancel_timeout=cancel_timeout,
        name="DuckDB",
    )


def _has_it_always(_: object) -> None:
    pass


def _begin(isolation: Isolation | None, readonly: bool) -> Sequence[str]:
    if isolation == "serializable":
        raise unsupported('the isolation level "serializable"', "DuckDB")
    return ["BEGIN TRANSACTION READ ONLY" if readonly else "BEGIN TRANSACTION"]


def _rollback(refusal: type[Exception], connection: DuckDBPyConnection) -> None:
    # Nothing tells whether a transaction is open. Now one is: DuckDB refuses a second one.
    with suppress(refusal):
        connection.begin()
    connection.rollback()


def _judge(fatal: tuple[type[Exception], ...], _: object, error: BaseException) -> Verdict:
    return Verdict.REMOVE if isinstance(error, fatal) else Verdict.OK


@final
class DuckDBCursor:
    """A cursor as PEP 249 has it, of the connection's own session.

    DuckDB answers a change with a row that holds the count; here that is the ``rowcount``, and there are no rows.

    Attributes:
        rowcount: how many rows were changed; for a change that returns rows, how many of them have been read.

    Invariants:
        _rest implies that the connection's present answer is this cursor's, and not read to its end
    """

    def __init__(self, connection: DuckDBPyConnection) -> None:
        self._connection = connection
        self._sql = ""
        self._rest = False
        self.rowcount = -1
        self.description: Any = None

    def execute(self, sql: str, params: Parameters = ()) -> None:
        """Run one statement."""
        if params:
            self._connection.execute(sql, params)
        else:
            self._connection.execute(sql)
        self._sql = sql
        columns = self._connection.description or []
        if [column[0] for column in columns] == ["Count"] and CHANGE.match(sql) and not RETURNING.search(sql):
            self._rest, self.description = False, None
            self.rowcount = self._connection.fetchall()[0][0]
        else:
            self._rest, self.description = True, columns
            self.rowcount = 0

    def executemany(self, sql: str, rows: Sequence[Parameters]) -> None:
        """Run one statement for every one of ``rows``; four times faster than as many calls of ``execute``."""
        self.execute(sql, rows[0])
        changed = self._read_to_the_end()
        if self._connection.rowcount >= 0:
            if len(rows) > 1:
                self._connection.executemany(sql, list(rows[1:]))
                changed += self._connection.rowcount
        else:
            # DuckDB before 2.0 does not count what executemany does.
            for row in rows[1:]:
                self.execute(sql, row)
                changed += self._read_to_the_end()
        self.rowcount = changed

    def fetchone(self) -> Any:  # noqa: ANN401 - as the driver has it
        """Return the next row."""
        row = self._connection.fetchone()
        self._count([] if row is None else [row])
        return row

    def fetchmany(self, size: int) -> list[Any]:
        """Return the next rows."""
        return self._count(self._connection.fetchmany(size))

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        rows = self._count(self._connection.fetchall())
        self._rest = False
        return rows

    def close(self) -> None:
        """Drop the rest of the answer, which would go on holding what it reads; a change goes on to its end."""
        if not self._rest:
            return
        self._rest = False
        abort = getattr(self._connection, "abort", None) if PLAIN_READ.match(self._sql) else None
        # After an error there is nothing left to drop, and the connection may refuse.
        with suppress(Exception):
            if abort is not None:
                abort()
            else:
                self._connection.execute("SELECT 1").fetchall()

    def _count(self, rows: list[Any]) -> list[Any]:
        self._rest = bool(rows)
        self.rowcount += len(rows)
        return rows

    def _read_to_the_end(self) -> int:
        if self._rest:
            self.fetchall()
        return self.rowcount
