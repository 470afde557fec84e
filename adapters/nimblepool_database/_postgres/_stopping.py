"""Bringing a connection back into step after its user was cancelled in the middle of the protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import OperationalError, pq
from psycopg.waiting import Wait

if TYPE_CHECKING:
    from collections.abc import Generator

    from psycopg.pq.abc import PGcancelConn, PGconn

ACTIVE = pq.TransactionStatus.ACTIVE


def is_at_work(pgconn: PGconn) -> bool:
    """Tell whether the server may be doing something for this connection, or may be waiting for a pipeline's end."""
    return pgconn.transaction_status == ACTIVE or pgconn.pipeline_status != pq.PipelineStatus.OFF


def request_cancel(request: PGcancelConn) -> Generator[tuple[int, int], int, None]:
    """Ask the server, over a connection of its own, to break off what it does; when this ends, the server has done so.

    To be driven by `drive_opening`.

    Raises:
        psycopg.OperationalError: the server cannot be reached, or refused.
    """
    request.start()
    try:
        while (status := request.poll()) != pq.PollingStatus.OK:
            if status == pq.PollingStatus.FAILED:
                raise OperationalError(f"the cancel request failed: {request.get_error_message()}")
            yield request.socket, Wait.R if status == pq.PollingStatus.READING else Wait.W
    finally:
        request.finish()


def drain(pgconn: PGconn) -> Generator[int, int, None]:
    """Read and drop the answers that are under way, until the server is idle; can be begun again where it was left.

    Raises:
        psycopg.OperationalError: the connection is lost.
    """
    # What was sent in a pipeline stays open, with its locks, until a synchronisation point; libpq counts the results
    # alone, and does not tell whether there was one. One too many does no harm.
    if pgconn.pipeline_status != pq.PipelineStatus.OFF:
        pgconn.pipeline_sync()
    while pgconn.transaction_status == ACTIVE:
        yield from _exchange(pgconn)
        if result := pgconn.get_result():
            yield from _end_copy(pgconn, result.status)


def _end_copy(pgconn: PGconn, status: int) -> Generator[int, int, None]:
    if status == pq.ExecStatus.COPY_OUT:
        yield from _skip_rows(pgconn)
    elif status == pq.ExecStatus.COPY_IN:
        while pgconn.put_copy_end(b"cancelled by the client") == 0:
            yield Wait.W
    elif status == pq.ExecStatus.COPY_BOTH:
        raise OperationalError("a stream of replication data cannot be broken off")


def _exchange(pgconn: PGconn) -> Generator[int, int, None]:
    """Send what is still to be sent, and receive until there is a result."""
    while pgconn.flush():
        # The server may be waiting for us to read before it reads on.
        if (yield Wait.RW) & Wait.R:
            pgconn.consume_input()
    while pgconn.is_busy():
        yield Wait.R
        pgconn.consume_input()


def _skip_rows(pgconn: PGconn) -> Generator[int, int, None]:
    # 0: none has arrived yet. -1: there are no more.
    while (size := pgconn.get_copy_data(1)[0]) >= 0:
        if size == 0:
            yield Wait.R
            pgconn.consume_input()
