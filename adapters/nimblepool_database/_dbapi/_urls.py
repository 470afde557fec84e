"""URLs for the drivers that have ready-made settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urlsplit

from nimblepool_database._query import options_in

from ._duckdb import duckdb_worker
from ._pymysql import pymysql_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ._worker import DBAPIWorker

DUCKDB_PREFIX = "duckdb:///"
DUCKDB_FORMS = "duckdb:///relative.db, duckdb:////absolute/path.db or duckdb:///:memory:"
MYSQL_FORM = "mysql://user:password@host:port/database"
SWITCH = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}


def duckdb_from_url(url: str) -> DBAPIWorker[Any]:
    """Make the worker for a ``duckdb:///`` URL; ``?read_only=on`` may follow.

    Raises:
        ValueError: the URL has another form, or an option that does not exist or cannot have this value.
        ModuleNotFoundError: duckdb is not installed.
    """
    if not url.startswith(DUCKDB_PREFIX):
        raise ValueError(f"a DuckDB URL is {DUCKDB_FORMS}")
    path, _, query = url.removeprefix(DUCKDB_PREFIX).partition("?")
    return duckdb_worker(unquote(path), **options_in(query, {"read_only": _switch}, "DuckDB"))


def mysql_from_url(url: str) -> DBAPIWorker[Any]:
    """Make the worker for a ``mysql://`` or ``mariadb://`` URL, through PyMySQL.

    Options may follow: ``charset``, ``unix_socket``, and in seconds ``connect_timeout``, ``read_timeout`` and
    ``write_timeout``. Special characters in the name, the password or the database are written as ``%XX``.

    Raises:
        ValueError: the URL has another form, or an option that does not exist or cannot have this value.
        ModuleNotFoundError: PyMySQL is not installed.
    """
    parts = _split(url)
    if not parts.hostname and not parts.query:
        # The URL itself is not repeated: it may hold a password.
        raise ValueError(f"a MySQL URL is {MYSQL_FORM}; this one has no host")
    given: dict[str, Any] = {
        "host": parts.hostname,
        "port": _port(parts),
        "user": parts.username and unquote(parts.username),
        "password": parts.password and unquote(parts.password),
        "database": unquote(parts.path.removeprefix("/")),
    }
    named = {name: value for name, value in given.items() if value}
    return pymysql_worker(**{**named, **options_in(parts.query, MYSQL_OPTIONS, "MySQL")})


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = None
    # What stands behind an unescaped "/", "?" or "#" of the password would be taken for a database or an option.
    if parts is None or "@" in parts.path + parts.query + parts.fragment:
        # Raised here, without the complaint of urlsplit, which repeats what it cannot read.
        raise ValueError(f"a MySQL URL is {MYSQL_FORM}, with special characters as %XX; this one cannot be read")
    return parts


def _port(parts: SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError:
        # Its text repeats what stands there: a piece of a password with an unescaped "@" or ":", perhaps.
        raise ValueError(f"a MySQL URL is {MYSQL_FORM}; the port of this one is not a number") from None


def _switch(name: str, text: str) -> bool:
    try:
        return SWITCH[text.lower()]
    except KeyError:
        raise ValueError(f"{name} must be one of {', '.join(SWITCH)}, not {text!r}") from None


def _seconds(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} must be a number of seconds, not {text!r}") from None


def _text(_: str, text: str) -> str:
    return text


MYSQL_OPTIONS: Mapping[str, Callable[[str, str], Any]] = {
    "charset": _text,
    "unix_socket": _text,
    "connect_timeout": _seconds,
    "read_timeout": _seconds,
    "write_timeout": _seconds,
}
