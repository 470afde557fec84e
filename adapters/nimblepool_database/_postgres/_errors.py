"""The adapter's own errors over PostgreSQL, each also the pool's and psycopg's; and what PostgreSQL's codes mean to us.

Most errors say something about a statement, and leave the connection as good as it was. Two kinds do not:

- *This connection* is no use any more though it is open: its prepared statements and psycopg's record of them differ,
  the backend has met an internal error, or it holds memory that only its end sets free. One connection is removed.
- *Every connection opened before now* is in the wrong place. A server that turned into a standby while connections to
  it stayed open (behind a proxy, or a name that now means another machine) answers every write with 25006: nothing is
  broken, and nothing would ever mend it. After a crash (57P02) all sessions of the server are gone. After a change of a
  table all prepared statements over it fail, once on each connection. Then all are retired.

An orderly end (57P01) is not a fail-over: ``pg_terminate_backend`` sends the same, to one session. When the whole
server stops, every connection shows its own end as soon as the pool looks at it.
"""

from __future__ import annotations

from typing import Final

import psycopg

from nimblepool import Verdict
from nimblepool_database._errors import CommitUnknown, TransactionLost


class PostgresTransactionLost(TransactionLost, psycopg.OperationalError):
    """The transaction is gone though its block goes on; see `TransactionLost`."""


class PostgresCommitUnknown(CommitUnknown, psycopg.OperationalError):
    """The COMMIT got no answer within ``commit_timeout``, or its connection was lost; see `CommitUnknown`."""


READ_ONLY: Final = "25006"
"""A write where only reading is allowed."""
FAIL_OVER: Final = frozenset({READ_ONLY, "57P02"})
"""Retire every connection opened before now: read_only_sql_transaction, crash_shutdown."""
FATAL_CLASSES: Final = ("08", "58", "57P", "XX")
"""Remove the connection: connection exceptions, system errors, operator intervention, internal errors."""
FATAL: Final = frozenset({"25P03", "25P04", "26000", "42P05", "53200"})
"""The same: timeouts that end the session (idle in transaction, transaction), a prepared statement that is missing or
there twice, out of memory."""
UNDECIDED: Final = frozenset({"08007", "40003"})
"""The server itself does not know how the transaction ended."""
STALE_PLAN: Final = "RevalidateCachedQuery"
"""The function in the server that says "cached plan must not change result type"; its code (0A000) says less."""


def verdict_on(error: psycopg.Error) -> Verdict:
    """Tell what ``error``, raised by a statement, says about the connection, and about the others."""
    state = error.sqlstate
    if state is None:
        # It did not come from the server. If the connection was lost, its status says so.
        return Verdict.OK
    if state in FAIL_OVER or error.diag.source_function == STALE_PLAN:
        return Verdict.REFRESH
    if state in FATAL or state.startswith(FATAL_CLASSES):
        return Verdict.REMOVE
    return Verdict.OK


def error_from(sqlstate: str | None, message: str) -> psycopg.OperationalError:
    """Make psycopg's error for what a server said before it closed the connection."""
    try:
        kind = psycopg.errors.lookup(sqlstate or "")
    except KeyError:
        kind = psycopg.OperationalError
    return kind(message) if issubclass(kind, psycopg.OperationalError) else psycopg.OperationalError(message)
