"""A PEP 249 driver made for the tests: its connections check who calls them, and take their time.

It begins transactions unasked, has no way to cancel, and keeps what is committed in a dictionary of the database.
"""

import threading
from collections.abc import Sequence
from typing import Any

apilevel = "2.0"
threadsafety = 1
paramstyle = "qmark"


class Error(Exception):
    pass


class InterfaceError(Error):
    pass


class OperationalError(Error):
    pass


class Database:
    """What the connections have in common.

    ``slow`` is waited for by the statement "wait", and ``committed`` is what came of the rest.
    """

    def __init__(self) -> None:
        self.slow = threading.Event()
        self.waiting = threading.Event()
        self.committed: list[object] = []
        self.connections: list[Connection] = []
        self.refuse_commits: Exception | None = None
        self.hang_commits = False

    def connect(self) -> "Connection":
        connection = Connection(self)
        self.connections.append(connection)
        return connection


class Connection:
    """Belongs to the thread that made it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.thread = threading.get_ident()
        self.pending: list[object] = []
        self.cursors = 0
        self.closed = False
        self.calls: list[str] = []

    def check(self, call: str) -> None:
        assert threading.get_ident() == self.thread, f"{call} in a thread that the connection does not belong to"
        if self.closed:
            raise InterfaceError("the connection is closed")
        self.calls.append(call)

    def cursor(self) -> "Cursor":
        self.check("cursor")
        self.cursors += 1
        return Cursor(self)

    def commit(self) -> None:
        self.check("commit")
        if self.database.hang_commits:
            self.database.waiting.set()
            self.database.slow.wait(30)
        if self.database.refuse_commits is not None:
            raise self.database.refuse_commits
        self.database.committed += self.pending
        self.pending = []

    def rollback(self) -> None:
        self.check("rollback")
        self.pending = []

    def close(self) -> None:
        self.check("close")
        assert self.cursors == 0, "a cursor was left open"
        self.closed = True


class Cursor:
    """Understands "add", "wait", "fail", "break", "count" and "rows"."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.description: Sequence[Any] | None = None
        # None of the rest is kept by a driver that does not count.
        self.rowcount = -1
        self.rows: list[tuple[Any, ...]] = []

    def execute(self, sql: str, params: Sequence[Any] = ()) -> None:
        self.connection.check(sql)
        word, database = sql.split(maxsplit=1)[0], self.connection.database
        self.description, self.rows = None, []
        if word == "add":
            self.connection.pending.append(params[0])
        elif word == "wait":
            database.waiting.set()
            database.slow.wait(30)
        elif word == "fail":
            raise OperationalError("it failed")
        elif word == "break":
            raise InterfaceError("it broke")
        elif word in {"SELECT", "count", "rows"}:
            self.description = [(word, None, None, None, None, None, None)]
            many = params[0] if params else 1
            self.rows = [(n,) for n in range(many)] if word == "rows" else [(len(database.committed),)]

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        for row in rows:
            self.execute(sql, row)

    def fetchone(self) -> tuple[Any, ...] | None:
        self.connection.check("fetchone")
        return self.rows.pop(0) if self.rows else None

    def fetchmany(self, size: int = 1) -> list[tuple[Any, ...]]:
        self.connection.check("fetchmany")
        rows, self.rows = self.rows[:size], self.rows[size:]
        return rows

    def fetchall(self) -> list[tuple[Any, ...]]:
        self.connection.check("fetchall")
        rows, self.rows = self.rows, []
        return rows

    def close(self) -> None:
        self.connection.check("cursor.close")
        self.connection.cursors -= 1
