"""sqlite3 through `DBAPIWorker`."""

from __future__ import annotations

import os
import sqlite3
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nimblepool import Verdict
from nimblepool_database._resource import unsupported

from ._import import refuse
from ._worker import DBAPIWorker, FileWorker, OneConnectionWorker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nimblepool_database._resource import Isolation

FATAL = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_INTERNAL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOTADB})
PRIMARY = 0xFF
"""The part of an error code that names its kind; the rest is detail."""


def sqlite3_worker(
    path: str | os.PathLike[str],
    *,
    commit_timeout: float = 10.0,
    cancel_timeout: float = 5.0,
    **options: Any,  # noqa: ANN401 - whatever connect takes
) -> DBAPIWorker[sqlite3.Connection]:
    """Make a worker for connections of Python's own sqlite3, set up as `sqlite3.connect` does.

    For SQLite's own sake use `SQLiteWorker`, which has a queue for writers, WAL and readers; this one is for those who
    need the connection just as ``sqlite3.connect`` makes it.

    Args:
        path: the file; a relative one is taken from the present working directory, once. ``":memory:"`` is a database
            that each connection has to itself, so its pool has one.
        commit_timeout: of `DBAPIWorker`, in seconds.
        cancel_timeout: likewise.
        **options: of `sqlite3.connect` (``timeout``, ``detect_types``, ``uri``, ...), except ``isolation_level`` and
            ``check_same_thread``.

    Raises:
        ValueError: an option that the adapter sets itself.
    """
    refuse(options, "isolation_level", "autocommit", "check_same_thread")
    name = os.fspath(path)
    in_memory = name == ":memory:"
    if not in_memory and not options.get("uri"):
        name = str(Path(name).absolute())
    make = OneConnectionWorker[sqlite3.Connection] if in_memory else FileWorker[sqlite3.Connection]
    return make(
        partial(sqlite3.connect, name, isolation_level=None, **options),
        autocommit=_done_by_connect,
        cancel=sqlite3.Connection.interrupt,
        in_transaction=_in_transaction,
        begin=_begin,
        judge=_judge,
        error=sqlite3.OperationalError,
        commit_timeout=commit_timeout,
        cancel_timeout=cancel_timeout,
        name="SQLite",
    )


def _done_by_connect(_: sqlite3.Connection) -> None:
    pass


def _in_transaction(connection: sqlite3.Connection) -> bool:
    return connection.in_transaction


def _begin(_: Isolation | None, readonly: bool) -> Sequence[str]:
    # Every isolation level: SQLite's transactions are serializable.
    if readonly:
        raise unsupported("a read-only transaction, which SQLiteWorker has,", "sqlite3_worker")
    return ["BEGIN IMMEDIATE"]


def _judge(_: sqlite3.Connection, error: BaseException) -> Verdict:
    # Errors that the module raises without asking the library have no code.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return Verdict.REMOVE if code & PRIMARY in FATAL else Verdict.OK
