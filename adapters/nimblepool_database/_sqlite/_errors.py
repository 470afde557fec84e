"""The adapter's own errors over SQLite, each also the pool's and sqlite3's; and what SQLite's codes mean to us."""

from __future__ import annotations

import sqlite3

from nimblepool import PoolError
from nimblepool_database._errors import CommitUnknown, TransactionLost


class SQLiteBusy(PoolError, TimeoutError, sqlite3.OperationalError):
    """Another task of this pool kept the only right to write for the whole of ``busy_timeout``."""


class SQLiteTransactionLost(TransactionLost, sqlite3.OperationalError):
    """The transaction is gone though its block goes on; see `TransactionLost`."""


class SQLiteCommitUnknown(CommitUnknown, TimeoutError, sqlite3.OperationalError):
    """The COMMIT did not come back within ``commit_timeout``; see `CommitUnknown`."""


PRIMARY = 0xFF
"""The part of an error code that names its kind; the rest is detail."""

BEYOND_WAITING = frozenset({sqlite3.SQLITE_BUSY_SNAPSHOT})
"""A reading transaction that wants to write, too late: others have written since it began. Waiting changes nothing."""

FATAL = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_INTERNAL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOTADB})
"""After these a fresh connection is worth more than this one."""


def is_busy(error: sqlite3.Error) -> bool:
    """Tell whether ``error`` says that another connection has the lock, and that waiting can help."""
    code = _code(error)
    return code & PRIMARY == sqlite3.SQLITE_BUSY and code not in BEYOND_WAITING


def is_fatal(error: sqlite3.Error) -> bool:
    """Tell whether the connection that raised ``error`` should not be lent on."""
    return _code(error) & PRIMARY in FATAL


def _code(error: sqlite3.Error) -> int:
    # Errors that the module raises without asking the library have none.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
