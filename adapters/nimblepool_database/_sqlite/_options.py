"""How a SQLite connection is set up, and the URL that says so."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, final
from urllib.parse import unquote

from nimblepool_database._query import options_in

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping

PREFIX = "sqlite:///"
FORMS = "sqlite:///relative.db, sqlite:////absolute/path.db or sqlite:///:memory:"
JOURNAL_MODES = ("wal", "delete", "truncate", "persist", "memory", "off")
SWITCH = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}


RowFactory: TypeAlias = "Callable[[sqlite3.Cursor, tuple[Any, ...]], Any]"
"""What sqlite3 makes a row with: `sqlite3.Row`, for instance."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class SQLiteOptions:
    """The options of `SQLiteWorker`, which explains them; validated."""

    busy_timeout: float = 5.0
    commit_timeout: float = 10.0
    journal_mode: str | None = "wal"
    foreign_keys: bool = True
    row_factory: RowFactory | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not 0 <= self.busy_timeout <= math.inf:
            raise ValueError(f"busy_timeout must be at least 0 seconds, not {self.busy_timeout!r}")
        if not 0 < self.commit_timeout <= math.inf:
            raise ValueError(f"commit_timeout must be more than 0 seconds, not {self.commit_timeout!r}")
        if self.journal_mode is not None and self.journal_mode not in JOURNAL_MODES:
            allowed = ", ".join(map(repr, JOURNAL_MODES))
            raise ValueError(
                f"journal_mode must be one of {allowed}, or None to leave it alone, not {self.journal_mode!r}"
            )
        if self.row_factory is not None and not callable(self.row_factory):
            raise TypeError(
                f"row_factory must be called with a cursor and a tuple, or be None, not {self.row_factory!r}"
            )


def parse_url(url: str) -> tuple[str, dict[str, Any]]:
    """Split a ``sqlite:///`` URL into the path and the options for `SQLiteWorker`.

    Raises:
        ValueError: the URL has another form, or an option that does not exist or cannot have this value.
    """
    if not url.startswith(PREFIX):
        raise ValueError(f"a SQLite URL is {FORMS}; this one begins otherwise")
    path, _, query = url.removeprefix(PREFIX).partition("?")
    return unquote(path), options_in(query, PARSERS, "SQLite")


def _seconds(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} must be a number of seconds, not {text!r}") from None


def _switch(name: str, text: str) -> bool:
    try:
        return SWITCH[text.lower()]
    except KeyError:
        raise ValueError(f"{name} must be one of {', '.join(SWITCH)}, not {text!r}") from None


def _word(_: str, text: str) -> str:
    return text.lower()


PARSERS: Mapping[str, Callable[[str, str], Any]] = {
    "busy_timeout": _seconds,
    "commit_timeout": _seconds,
    "journal_mode": _word,
    "foreign_keys": _switch,
}
