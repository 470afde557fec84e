"""PyMySQL, for MariaDB and MySQL, through `DBAPIWorker`."""

from __future__ import annotations

import socket
from contextlib import suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Any, final

from nimblepool import Verdict

from ._import import driver, refuse
from ._worker import DBAPIWorker

# PyMySQL has no types, and its stubs are another package: its connections and cursors are Any.

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nimblepool_database._resource import Isolation, Parameters

IN_TRANSACTION = 1
"""The server's status flag SERVER_STATUS_IN_TRANS."""
FATAL = frozenset({1053, 1927, 2006, 2013, 2014, 2055, 4031})
"""Shutdown, killed, gone away, lost, out of step, lost again, idle for too long."""
KILL_TIMEOUT = 5.0
"""Seconds at most that the connection which kills a query has for each of its steps."""


def pymysql_worker(*, commit_timeout: float = 10.0, cancel_timeout: float = 5.0, **arguments: Any) -> DBAPIWorker[Any]:  # noqa: ANN401
    """Make a worker for MariaDB or MySQL through PyMySQL.

    A statement is cancelled by ``KILL QUERY``, from a connection made for that with the same arguments; through a proxy
    that has thread numbers of its own that would hit another statement of the same user. Most DDL commits in mid
    transaction, which then counts as lost. A deadlock rolls the whole transaction back, and it is lost, too. While a
    stream is open, its connection can do nothing else. A ``cursorclass`` is kept, and serves streams as well.

    Args:
        commit_timeout: of `DBAPIWorker`, in seconds.
        cancel_timeout: likewise.
        **arguments: of `pymysql.connect` (``host``, ``user``, ``password``, ``database``, ``unix_socket``, ``ssl``,
            ``cursorclass``, ...), except ``autocommit`` and ``defer_connect``.

    Raises:
        ValueError: an argument that the adapter sets itself.
        ModuleNotFoundError: PyMySQL is not installed.
    """
    pymysql = driver("pymysql", "pymysql")
    refuse(arguments, "autocommit", "defer_connect")
    kill = partial(_kill, partial(pymysql.connect, **_for_killing(arguments, min(KILL_TIMEOUT, cancel_timeout))))
    return DBAPIWorker(
        partial(pymysql.connect, **arguments, autocommit=True),
        autocommit=_done_by_connect,
        cancel=kill,
        sever=_sever,
        in_transaction=_in_transaction,
        begin=_begin,
        stream_cursor=partial(StreamCursor, pymysql.cursors.SSCursor, kill),
        stream_alone=True,
        settle=_settle,
        ping=_ping,
        judge=partial(_judge, pymysql.err.InterfaceError),
        error=pymysql.err.OperationalError,
        commit_timeout=commit_timeout,
        cancel_timeout=cancel_timeout,
        name="MySQL",
    )


def _for_killing(arguments: dict[str, Any], timeout: float) -> dict[str, Any]:
    kept = {name: value for name, value in arguments.items() if name not in {"init_command", "cursorclass"}}
    limits = dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), timeout)
    return {**kept, **limits, "autocommit": True}


def _kill(connect: Callable[[], Any], connection: Any) -> None:  # noqa: ANN401
    killer = connect()
    try:
        with killer.cursor() as cursor:
            cursor.execute(f"KILL QUERY {int(connection.thread_id())}")
    finally:
        killer.close()


def _sever(connection: Any) -> None:  # noqa: ANN401
    # PyMySQL has no name for it. Shutting down a socket, not closing it, wakes the thread that reads from it.
    sock: socket.socket | None = getattr(connection, "_sock", None)
    if sock is not None:
        sock.shutdown(socket.SHUT_RDWR)


def _done_by_connect(_: object) -> None:
    pass


def _in_transaction(connection: Any) -> bool:  # noqa: ANN401
    # As of the last answer; one that reports an error does not say, and is followed by `_settle`.
    return bool(connection.server_status & IN_TRANSACTION)


def _begin(isolation: Isolation | None, readonly: bool) -> Sequence[str]:
    start = "START TRANSACTION READ ONLY" if readonly else "START TRANSACTION"
    if isolation is None:
        return [start]
    return [f"SET TRANSACTION ISOLATION LEVEL {isolation.upper()}", start]


def _settle(connection: Any) -> None:  # noqa: ANN401
    with connection.cursor() as cursor:
        cursor.execute("DO 0")


def _ping(connection: Any) -> None:  # noqa: ANN401
    connection.ping(reconnect=False)


def _judge(closed: type[Exception], connection: Any, error: BaseException) -> Verdict:  # noqa: ANN401
    code = error.args[0] if error.args else None
    lost = not connection.open or isinstance(error, closed) or code in FATAL
    return Verdict.REMOVE if lost else Verdict.OK


@cache
def _unbuffered(plain: type[Any], unbuffered: type[Any]) -> type[Any]:
    """Return a class of cursors whose rows look like those of ``plain``, and come from the server one by one."""
    return unbuffered if issubclass(unbuffered, plain) else type(plain.__name__, (plain, unbuffered), {})


@final
class StreamCursor:
    """A cursor that does not fetch everything at once, and need not read everything before it is closed."""

    def __init__(self, unbuffered: type[Any], kill: Callable[[Any], None], connection: Any) -> None:  # noqa: ANN401
        self._connection = connection
        self._kill = kill
        self._cursor = _unbuffered(connection.cursorclass, unbuffered)(connection)  # type: ignore[arg-type] # hashable
        self._rest = False

    @property
    def description(self) -> Any:  # noqa: ANN401 - as the driver has it
        """The columns of the answer."""
        return self._cursor.description

    def execute(self, sql: str, params: Parameters | None = None) -> None:
        """Run one statement; its rows stay with the server."""
        self._cursor.execute(sql, params)
        self._rest = self.description is not None

    def fetchmany(self, size: int) -> Any:  # noqa: ANN401 - as the driver has it
        """Fetch the next rows from the server."""
        rows = self._cursor.fetchmany(size)
        self._rest = bool(rows)
        return rows

    def close(self) -> None:
        """Close the cursor. That reads the whole rest, so the server is told to stop sending it."""
        rest, self._rest = self._rest, False
        if rest:
            # Where it cannot be told, there is only reading on.
            with suppress(Exception):
                self._kill(self._connection)
        try:
            self._cursor.close()
        except Exception:
            if not (rest and self._connection.open):
                raise
        if rest:
            # The order may have come when there was nothing left to stop.
            with suppress(Exception):
                _settle(self._connection)
