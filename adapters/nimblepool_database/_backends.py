"""Which URL belongs to which database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._dbapi._urls import duckdb_from_url, mysql_from_url
from ._lazy import find
from ._sqlite._worker import SQLiteWorker
from ._worker import DatabaseWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def _postgres(url: str) -> DatabaseWorker[Any]:
    worker: DatabaseWorker[Any] = find("PostgresWorker").from_url(url)
    return worker


BACKENDS: Mapping[str, Callable[[str], DatabaseWorker[Any]]] = {
    "sqlite": SQLiteWorker.from_url,
    "postgresql": _postgres,
    "postgres": _postgres,
    "duckdb": duckdb_from_url,
    "mysql": mysql_from_url,
    "mariadb": mysql_from_url,
}
FORMS = "sqlite:///path, postgresql://host/name, mysql://host/name, duckdb:///path"


def worker_from(source: str | DatabaseWorker[Any]) -> DatabaseWorker[Any]:
    """Return the worker that a URL means, or the one given.

    Raises:
        ValueError: the scheme is unknown, or the rest of the URL makes no sense to its database.
        TypeError: it is neither a URL nor a worker.
        ImportError: the database's driver is not installed.
    """
    if isinstance(source, DatabaseWorker):
        return source
    if not isinstance(source, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"a database is given as a URL or a DatabaseWorker, not as {type(source).__name__}")
    scheme, separator, _ = source.partition(":")
    if not separator or scheme not in BACKENDS:
        # The URL itself is not repeated: it may hold a password.
        raise ValueError(f"a database URL is one of {FORMS}; this one begins otherwise")
    return BACKENDS[scheme](source)
