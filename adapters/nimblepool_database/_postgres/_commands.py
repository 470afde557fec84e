"""The statements that we make ourselves, and what their answers mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from psycopg import OperationalError, generators, pq
from psycopg.errors import error_from_result
from psycopg.sql import SQL, Identifier

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg import AsyncCursor
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn

CHANGING: Final = ("INSERT", "UPDATE", "DELETE", "MERGE")
"""The commands whose row count is of rows that were changed; after a SELECT it is of rows that were read."""


def run(pgconn: PGconn, statements: Iterable[bytes]) -> PQGen[bytes]:
    """Run statements without parameters, in one round trip; return what the server calls the last of them.

    Psycopg's cursors would look each statement up among those worth preparing, and make objects for an answer that has
    no rows.

    Raises:
        psycopg.Error: one of them failed, and those after it were not run.
    """
    pgconn.send_query(b"; ".join(statements))
    results = yield from generators.execute(pgconn)
    for result in results:
        if result.status == pq.ExecStatus.FATAL_ERROR:
            raise error_from_result(result)
    if not results:
        raise OperationalError("the server gave no answer")
    return results[-1].command_status or b""


def rows_changed(cursor: AsyncCursor[Any]) -> int:
    """Return how many rows the cursor's statement changed; 0 for one that changes none, or has no answer yet."""
    status = cursor.statusmessage
    return cursor.rowcount if status is not None and status.startswith(CHANGING) else 0


def set_savepoint(name: str) -> bytes:
    """Return the statement that sets a savepoint."""
    return SQL("SAVEPOINT {}").format(Identifier(name)).as_bytes(None)


def release(name: str) -> bytes:
    """Return the statement that gives a savepoint up."""
    return SQL("RELEASE SAVEPOINT {}").format(Identifier(name)).as_bytes(None)


def rollback_to(name: str) -> bytes:
    """Return the statement that undoes what was done since a savepoint."""
    return SQL("ROLLBACK TO SAVEPOINT {}").format(Identifier(name)).as_bytes(None)
