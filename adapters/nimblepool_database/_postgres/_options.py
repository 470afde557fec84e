"""How the pool's PostgreSQL connections are opened and kept."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, final, get_args

import psycopg
from psycopg import pq

from . import _conninfo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from nimblepool_database._resource import Isolation

    from ._trio_connection import TrioConnection

Configure: TypeAlias = "Callable[[TrioConnection[Any]], Awaitable[object]]"
"""What is done to every new connection."""
Reset: TypeAlias = Literal["auto", "discard"]

ISOLATION: Final[Mapping[str, str]] = {
    "read uncommitted": " ISOLATION LEVEL READ UNCOMMITTED",
    "read committed": " ISOLATION LEVEL READ COMMITTED",
    "repeatable read": " ISOLATION LEVEL REPEATABLE READ",
    "serializable": " ISOLATION LEVEL SERIALIZABLE",
}
MOST_SECONDS: Final = 2_147_483
"""PostgreSQL counts ``statement_timeout`` in milliseconds, in 31 bits."""
SWITCH: Final[Mapping[str, bool]] = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}
PREPARE_AFTER: Final = 5
"""How often a statement runs before it is prepared, as in psycopg."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class PostgresOptions:
    """The options of `PostgresWorker`, which explains them; validated.

    Attributes:
        parameters: the connection string, taken apart; never shown, for the password is in it.
    """

    parameters: Mapping[str, str] = field(repr=False)
    configure: Configure | None = None
    reset: Reset = "auto"
    statement_timeout: float | None = None
    commit_timeout: float = 10.0
    cancel_timeout: float = 5.0
    application_name: str | None = None
    prepare_threshold: int | None = PREPARE_AFTER
    row_factory: Any = None
    pgbouncer: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        _check_seconds("statement_timeout", self.statement_timeout, most=MOST_SECONDS, optional=True)
        _check_seconds("commit_timeout", self.commit_timeout)
        _check_seconds("cancel_timeout", self.cancel_timeout)
        self._check_words()
        self._check_callables()

    def _check_words(self) -> None:
        allowed = get_args(Reset)
        if self.reset not in allowed:
            raise ValueError(f"reset must be one of {', '.join(map(repr, allowed))}, not {self.reset!r}")
        _check_switch("pgbouncer", self.pgbouncer)
        if self.pgbouncer and self.reset == "discard":
            raise ValueError("reset='discard' would run on any of PgBouncer's connections: leave it 'auto'")
        _check_name("application_name", self.application_name)
        _check_count("prepare_threshold", self.prepare_threshold)

    def _check_callables(self) -> None:
        for name, value in (("configure", self.configure), ("row_factory", self.row_factory)):
            if value is not None and not callable(value):
                raise ValueError(f"{name} must be a function or None, not {value!r}")

    @property
    def conninfo(self) -> str:
        """The connection string, with the password."""
        # PgBouncer refuses server options when a client connects.
        timeout = None if self.pgbouncer else self._timeout_setting("-c ")
        return _conninfo.complete(dict(self.parameters), application_name=self.application_name, server_options=timeout)

    @property
    def where(self) -> str:
        """Where it leads, without the password."""
        return _conninfo.describe(dict(self.parameters))

    async def set_up(self, raw: TrioConnection[Any]) -> None:
        """Do to a connection what ``configure`` says.

        Raises:
            psycopg.ProgrammingError: that left it in a transaction.
        """
        if self.configure is None:
            return
        await self.configure(raw)
        if raw.pgconn.transaction_status != pq.TransactionStatus.IDLE or not raw.autocommit:
            raise psycopg.ProgrammingError("configure must leave the connection in autocommit mode, in no transaction")

    def begin(self, isolation: Isolation | None, *, readonly: bool) -> tuple[bytes, ...]:
        """Return the statements that open a transaction.

        Raises:
            ValueError: PostgreSQL has no such isolation level.
        """
        if isolation is not None and isolation not in ISOLATION:
            raise ValueError(f"isolation must be one of {', '.join(map(repr, ISOLATION))}, or None, not {isolation!r}")
        begin = f"BEGIN{ISOLATION[isolation] if isolation else ''}{' READ ONLY' if readonly else ''}"
        # A plain SET would stay with PgBouncer's connection, and hit whoever gets that next.
        timeout = self._timeout_setting("SET LOCAL ") if self.pgbouncer else None
        return (begin.encode(),) if timeout is None else (begin.encode(), timeout.encode())

    def _timeout_setting(self, prefix: str) -> str | None:
        if self.statement_timeout is None:
            return None
        return f"{prefix}statement_timeout={max(1, round(self.statement_timeout * 1000))}"


def parse_url(url: str) -> tuple[str, dict[str, Any]]:
    """Split a URL into one for libpq and the options for `PostgresWorker`.

    Raises:
        ValueError: the URL has another form, or an option that does not exist or cannot have this value.
    """
    if not url.startswith(_conninfo.SCHEMES):
        raise ValueError("a PostgreSQL URL is postgresql://user:password@host:5432/database?option=value")
    rest, texts = _conninfo.split_query(url, PARSERS)
    return rest, {name: PARSERS[name](name, text) for name, text in texts.items()}


def _seconds(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} must be a number of seconds, not {text!r}") from None


def _count(name: str, text: str) -> int | None:
    if text == "none":
        return None
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name} must be a count from 0, or none, not {text!r}") from None


def _switch(name: str, text: str) -> bool:
    try:
        return SWITCH[text.lower()]
    except KeyError:
        raise ValueError(f"{name} must be one of {', '.join(SWITCH)}, not {text!r}") from None


def _check_seconds(name: str, value: object, *, most: float = math.inf, optional: bool = False) -> None:
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        limit = "" if most == math.inf else f" and at most {most}"
        none = ", or None for no limit" if optional else ""
        raise ValueError(f"{name} must be more than 0 seconds{limit}{none}, not {value!r}")


def _check_switch(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, not {value!r}")  # noqa: TRY004 - as every wrong option


def _check_name(name: str, value: object) -> None:
    if value is not None and not (isinstance(value, str) and value.isprintable() and value):
        raise ValueError(f"{name} must be a printable text, or None to leave it alone, not {value!r}")


def _check_count(name: str, value: object) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise ValueError(f"{name} must be a count from 0, or None for never, not {value!r}")


PARSERS: Final[Mapping[str, Callable[[str, str], Any]]] = {
    "reset": lambda _, text: text,
    "statement_timeout": _seconds,
    "commit_timeout": _seconds,
    "cancel_timeout": _seconds,
    "prepare_threshold": _count,
    "pgbouncer": _switch,
}
"""The options that a URL's query may hold beside libpq's own."""
