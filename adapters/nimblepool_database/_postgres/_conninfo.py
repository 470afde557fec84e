"""Connection strings: read, checked and completed, without ever showing the password.

libpq's own complaints quote what they could not read, and that may be a part of the password: they are replaced.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

if TYPE_CHECKING:
    from collections.abc import Collection

SCHEMES: Final = ("postgresql://", "postgres://")
FORMS: Final = "postgresql://user:password@host:5432/database?option=value, or host=... dbname=... user=..."
SHOWN: Final = ("host", "hostaddr", "port", "dbname", "user", "service")
"""What of a connection string may appear in a repr or a log."""
IS_A_NAME: Final = re.compile(r"[a-z_]{1,40}").fullmatch
LAST_PORT: Final = 65535
CONNECT_TIMEOUT: Final = 10
"""Seconds for one host, unless the connection string or PGCONNECT_TIMEOUT says otherwise."""


def parse(conninfo: str) -> dict[str, str]:
    """Return the parameters in a URL or in libpq's ``key=value`` form.

    Raises:
        ValueError: it has another form, or an option that libpq does not know.
    """
    if "://" in conninfo and not conninfo.startswith(SCHEMES):
        raise ValueError(f"a PostgreSQL connection string is {FORMS}; this URL begins otherwise")
    if conninfo.startswith(SCHEMES) and _has_stray_at(conninfo):
        raise ValueError(
            "in a PostgreSQL URL, write @ and / in the user's name, the password or the database as %40 and %2F"
        )
    try:
        parameters = {name: str(value) for name, value in conninfo_to_dict(conninfo).items()}
    except psycopg.ProgrammingError:
        hint = _unknown_option(conninfo)
    else:
        _check_ports(parameters.get("port", ""))
        return parameters
    # Raised here, without libpq's complaint as its context.
    raise ValueError(
        f"a PostgreSQL connection string is {FORMS}; this one cannot be read"
        f"{hint or ' (in a URL, special characters of the password are percent-encoded)'}"
    )


def split_query(url: str, own: Collection[str]) -> tuple[str, dict[str, str]]:
    """Take the options named in ``own`` out of a URL's query; return the rest of the URL, and them.

    Raises:
        ValueError: one is given twice.
    """
    base, query = _cut_query(url)
    options: dict[str, str] = {}
    others: list[str] = []
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if name not in own:
            others.append(pair)
        elif name in options:
            raise ValueError(f"the URL gives {name} twice")
        else:
            options[name] = unquote(value)
    return base + "?" + "&".join(others) if any(others) else base, options


def complete(parameters: dict[str, str], *, application_name: str | None, server_options: str | None) -> str:
    """Return the connection string to connect with: ``parameters``, and what the worker adds to them."""
    whole = {"connect_timeout": str(CONNECT_TIMEOUT), **_environment(), **parameters}
    if application_name is not None:
        whole["application_name"] = application_name
    if server_options is not None:
        whole["options"] = f"{whole['options']} {server_options}" if whole.get("options") else server_options
    return make_conninfo(**whole)


def describe(parameters: dict[str, str]) -> str:
    """Say where a connection string leads, without any secret."""
    return " ".join(f"{name}={parameters[name]}" for name in SHOWN if name in parameters) or "libpq's defaults"


def known_options() -> list[str]:
    """Return the names of libpq's options."""
    return sorted(option.keyword.decode() for option in pq.Conninfo.get_defaults())


def _environment() -> dict[str, str]:
    """Return what the environment says about options that the worker gives a default of its own, or adds to."""
    found = {option.keyword.decode(): option.val for option in pq.Conninfo.get_defaults()}
    return {name: value.decode() for name in ("connect_timeout", "options") if (value := found.get(name))}


def _cut_query(url: str) -> tuple[str, str]:
    """Split a URL where libpq does: a question mark in the password is the password's."""
    scheme, _, rest = url.partition("://")
    user, at, place = rest.partition("@")
    if not at or "/" in user:
        user, at, place = "", "", rest
    place, _, query = place.partition("?")
    return f"{scheme}://{user}{at}{place}", query


def _has_stray_at(url: str) -> bool:
    """Tell whether libpq would take what is probably a piece of the password for the host or the database."""
    base, _ = _cut_query(url)
    place = base.partition("://")[2]
    user, _, rest = place.partition("@")
    return "@" in (place if "/" in user else rest)


def _check_ports(ports: str) -> None:
    # Else libpq says so at every attempt to connect, and the pool would wait for it to get better.
    for port in filter(None, ports.split(",")):
        if not (port.isdecimal() and 0 < int(port) <= LAST_PORT):
            raise ValueError(f"each port of a PostgreSQL connection string must be a number from 1 to {LAST_PORT}")


def _unknown_option(conninfo: str) -> str:
    """Say which option is unknown, if that can be told without quoting what may be a password."""
    query = _cut_query(conninfo)[1] if conninfo.startswith(SCHEMES) else conninfo
    if "@" in query:
        return ""
    separators = "&" if conninfo.startswith(SCHEMES) else None
    known = known_options()
    for pair in query.split(separators):
        name, equals, _ = pair.partition("=")
        if "password" in name:
            # What follows may be the rest of one that has blanks in it.
            return ""
        if equals and name not in known and IS_A_NAME(name):
            close = get_close_matches(name, known, n=1)
            return f": there is no option {name!r}" + (f"; did you mean {close[0]!r}?" if close else "")
    return ""
