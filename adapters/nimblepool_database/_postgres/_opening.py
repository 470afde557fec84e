"""Opening a connection: the hosts that a connection string stands for, tried one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from psycopg import Error, NotSupportedError, generators, pq
from psycopg.conninfo import conninfo_attempts, make_conninfo, timeout_from_conninfo
from psycopg.errors import ConnectionTimeout

from ._waiting import drive_opening

if TYPE_CHECKING:
    from psycopg.abc import ConnDict
    from psycopg.pq.abc import PGconn

OLDEST_LIBPQ = 170000


def check_libpq() -> None:
    """Refuse a libpq that cannot cancel without blocking, or that stays stuck when a COPY is cancelled.

    Raises:
        psycopg.NotSupportedError: libpq is older than 17.
    """
    version = pq.version()
    if version < OLDEST_LIBPQ:
        raise NotSupportedError(
            f"TrioConnection needs libpq 17 or newer, and psycopg's {pq.__impl__!r} implementation has found"
            f" {version // 10000}.{version % 10000}; the wheels of psycopg[binary] bring a new one"
        )


async def open_first(params: ConnDict) -> PGconn:
    """Connect to the first of the hosts that answers. A cancellation leaves no socket open.

    Raises:
        psycopg.OperationalError: none of them does, or none of the names is known.
    """
    timeout = timeout_from_conninfo(params)
    # It looks names up, which may block; nothing is lost when it is left behind.
    attempts = await trio.to_thread.run_sync(conninfo_attempts, params, abandon_on_cancel=True)
    failures: list[tuple[ConnDict, Error]] = []
    for attempt in attempts:
        try:
            with trio.fail_after(timeout):
                return await drive_opening(generators.connect(make_conninfo("", **attempt)))
        except trio.TooSlowError:
            failures.append((attempt, ConnectionTimeout("connection timeout expired")))
        except Error as exc:
            failures.append((attempt, exc))
    raise _summary(failures)


def _summary(failures: list[tuple[ConnDict, Error]]) -> Error:
    last = failures[-1][1]
    if len(failures) == 1:
        return last
    lines = [f"{last}", "Multiple connection attempts failed. All failures were:"]
    lines += [f"- {_describe(attempt)}: {error}" for attempt, error in failures]
    return type(last)("\n".join(lines), pgconn=last.pgconn)


def _describe(attempt: ConnDict) -> str:
    return ", ".join(f"{key}: {attempt.get(key)!r}" for key in ("host", "port", "hostaddr"))
