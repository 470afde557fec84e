"""psycopg 3 without asyncio and without trio, through `DBAPIWorker`."""

from __future__ import annotations

from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, final

from nimblepool import Verdict

from ._import import driver, refuse
from ._worker import DBAPIWorker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import Connection

    from nimblepool_database._resource import Isolation, Parameters

CANCEL_TIMEOUT = 5.0
"""Seconds until a request to cancel is given up, and made again."""

number = count(1).__next__


def psycopg_worker(
    conninfo: str = "",
    *,
    commit_timeout: float = 10.0,
    cancel_timeout: float = 5.0,
    **options: Any,  # noqa: ANN401 - whatever connect takes
) -> DBAPIWorker[Connection[Any]]:
    """Make a worker for PostgreSQL through psycopg's blocking connections, for those who need them.

    `PostgresWorker` does without threads; this one is for code that takes a ``psycopg.Connection``: `Connection.call`
    hands it one. Row factories and adapters are kept.

    Args:
        conninfo: of `psycopg.connect`: a URL, or words of the form ``name=value``.
        commit_timeout: of `DBAPIWorker`, in seconds.
        cancel_timeout: likewise.
        **options: of `psycopg.connect` (``row_factory``, ``prepare_threshold``, ``connect_timeout``, ...), except
            ``autocommit``.

    Raises:
        ValueError: ``conninfo`` makes no sense, or an option that the adapter sets itself.
        ModuleNotFoundError: psycopg is not installed.
    """
    psycopg = driver("psycopg", "nimblepool[postgres]")
    refuse(options, "autocommit")
    driver("nimblepool_database._postgres._conninfo", "nimblepool[postgres]").parse(conninfo)
    return DBAPIWorker(
        partial(psycopg.Connection.connect, conninfo, autocommit=True, **options),
        autocommit=_done_by_connect,
        cancel=_cancel,
        in_transaction=_in_transaction,
        begin=_begin,
        stream_cursor=StreamCursor,
        judge=_judge,
        error=psycopg.OperationalError,
        commit_timeout=commit_timeout,
        cancel_timeout=cancel_timeout,
        name="PostgreSQL",
    )


def _done_by_connect(_: object) -> None:
    pass


def _cancel(connection: Connection[Any]) -> None:
    connection.cancel_safe(timeout=CANCEL_TIMEOUT)


def _in_transaction(connection: Connection[Any]) -> bool:
    # 0 is IDLE in libpq's PGTransactionStatusType; an unknown state counts as an open transaction.
    return connection.pgconn.transaction_status != 0


def _begin(isolation: Isolation | None, readonly: bool) -> Sequence[str]:
    words = ["BEGIN"]
    if isolation is not None:
        words.append(f"ISOLATION LEVEL {isolation.upper()}")
    if readonly:
        words.append("READ ONLY")
    return [" ".join(words)]


def _judge(connection: Connection[Any], _: BaseException) -> Verdict:
    return Verdict.REMOVE if connection.closed else Verdict.OK


@final
class StreamCursor:
    """A cursor in the server, and the transaction that it needs if there is none."""

    def __init__(self, connection: Connection[Any]) -> None:
        self._connection = connection
        self._own = not _in_transaction(connection)
        if self._own:
            connection.execute("BEGIN")
        self._cursor = connection.cursor(f"nimblepool_{number()}")

    @property
    def description(self) -> Any:  # noqa: ANN401 - as the driver has it
        """The columns of the answer."""
        return self._cursor.description

    def execute(self, sql: str, params: Parameters | None = None) -> None:
        """Declare the cursor for a SELECT or VALUES."""
        self._cursor.execute(sql.encode(), params)

    def fetchmany(self, size: int) -> list[Any]:
        """Fetch the next rows from the server."""
        return self._cursor.fetchmany(size)

    def close(self) -> None:
        """Close the cursor; end the transaction that was begun for it."""
        try:
            self._cursor.close()
        finally:
            if self._own:
                self._connection.execute("COMMIT")
