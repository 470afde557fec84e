"""The options of a pool: their defaults and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Literal, TypedDict, final

from ._backoff import Backoff
from ._breaker import CircuitBreaker
from ._check import check_choice, check_count, check_optional_seconds, check_seconds, check_type
from ._codel import CoDel
from ._observer import PoolObserver


class PoolOptions(TypedDict, total=False):
    """The keyword options of ``open_pool``; all times are seconds on trio's clock, ``None`` means off."""

    name: str
    """Stands in errors and in the log; default ``"pool"``."""
    min_size: int
    """Kept open without being asked for; default 0."""
    max_size: int
    """Never more resources than this, those that are opening included; default 10."""
    order: Literal["lifo", "fifo"]
    """Which idle resource is lent next: the last one used (default; the pool can shrink), or the first."""
    strict_size: bool
    """Count resources that are closing, too, against ``max_size``; default False."""
    max_opening: int | None
    """At most so many ``init`` at a time; default ``max_size``."""
    checkout_timeout: float | None
    """How long a checkout may take in all when it names no timeout of its own; default 5."""
    max_waiting: int | None
    """At most so many clients wait for a lease to end; one more gets `PoolOverloaded`. Those for whom a resource is
    being opened, or can be, do not count. Default no limit."""
    max_hold: float | None
    """At most so long a lease; then the body is cancelled and `LeaseTimeout` raised; default off. Like ``close_grace``
    and ``on_death="cancel"`` it costs a cancel scope for each lease."""
    max_idle: float | None
    """Close what was not used for so long, down to ``min_size``; default off."""
    max_age: float | None
    """Close what was opened so long ago, or up to 10 % less (jitter, against herds); default off."""
    max_uses: int | None
    """Close what was lent so many times; default off."""
    ping_every: float | None
    """Ping what was neither used nor pinged for so long, the longest first; default off."""
    ping_batch: int
    """At most so many of these pings at a time; default 4."""
    ping_after: float | None
    """Ping before lending what was neither used nor pinged for so long; default off."""
    init_timeout: float
    """Deadline of ``init``; default 30."""
    reset_timeout: float
    """Deadline of ``reset``; default 5."""
    ping_timeout: float
    """Deadline of ``ping``; default 5."""
    terminate_timeout: float
    """Deadline of ``terminate``; default 5."""
    close_grace: float | None
    """How long leases may last once the pool closes. When given, their bodies are cancelled then; by default (5
    seconds) their resources are closed under them, which costs no cancel scope for each lease."""
    on_open_failure: Literal["raise", "wait", "each"]
    """When ``init`` fails: ``"raise"`` (default) gives the waiter `PoolUnavailable` at once, ``"wait"`` keeps it queued
    for the next attempt until its deadline, unless ``init`` raises `Fatal`. ``"each"`` raises, too, and gives the next
    client an attempt of its own at once: back-off and breaker are for what is opened without a client, or dies before
    its first use."""
    on_death: Literal["remove", "cancel"]
    """When ``watch`` ends while the resource is leased: ``"remove"`` (default) removes it at checkin, ``"cancel"`` also
    cancels the body and raises `ResourceLost`."""
    backoff: Backoff
    """Delays between attempts when ``init`` fails."""
    breaker: CircuitBreaker | None
    """When to stop letting clients wait for a resource that cannot be opened."""
    shedding: CoDel | None
    """Shedding by queueing time; default off."""
    observers: Iterable[PoolObserver]
    """Who is told what happens."""


DEFAULT_CLOSE_GRACE = 5.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Checked options. `PoolOptions` says what each means."""

    name: str = "pool"
    min_size: int = 0
    max_size: int = 10
    order: Literal["lifo", "fifo"] = "lifo"
    strict_size: bool = False
    max_opening: int | None = None
    checkout_timeout: float | None = 5.0
    max_waiting: int | None = None
    max_hold: float | None = None
    max_idle: float | None = None
    max_age: float | None = None
    max_uses: int | None = None
    ping_every: float | None = None
    ping_batch: int = 4
    ping_after: float | None = None
    init_timeout: float = 30.0
    reset_timeout: float = 5.0
    ping_timeout: float = 5.0
    terminate_timeout: float = 5.0
    close_grace: float | None = None
    on_open_failure: Literal["raise", "wait", "each"] = "raise"
    on_death: Literal["remove", "cancel"] = "remove"
    backoff: Backoff = field(default_factory=Backoff)
    breaker: CircuitBreaker | None = field(default_factory=CircuitBreaker)
    shedding: CoDel | None = None
    observers: Iterable[PoolObserver] = ()

    def __post_init__(self) -> None:
        check_type("name", self.name, str)
        check_type("strict_size", self.strict_size, bool)
        check_sizes(self.min_size, self.max_size)
        check_choice("order", self.order, ("lifo", "fifo"))
        check_choice("on_open_failure", self.on_open_failure, ("raise", "wait", "each"))
        check_choice("on_death", self.on_death, ("remove", "cancel"))
        check_count("ping_batch", self.ping_batch, least=1)
        self._check_optional_counts()
        self._check_times()
        self._check_parts()

    def _check_optional_counts(self) -> None:
        for name, value, least in (
            ("max_opening", self.max_opening, 1),
            ("max_waiting", self.max_waiting, 0),
            ("max_uses", self.max_uses, 1),
        ):
            if value is not None:
                check_count(name, value, least=least)

    def _check_times(self) -> None:
        for name, value in (
            ("checkout_timeout", self.checkout_timeout),
            ("max_idle", self.max_idle),
            ("ping_after", self.ping_after),
            ("close_grace", self.close_grace),
        ):
            check_optional_seconds(name, value)
        for name, value in (("max_hold", self.max_hold), ("max_age", self.max_age), ("ping_every", self.ping_every)):
            check_optional_seconds(name, value, zero=False)
        for name in ("init_timeout", "reset_timeout", "ping_timeout", "terminate_timeout"):
            check_seconds(name, getattr(self, name), zero=False)

    def _check_parts(self) -> None:
        check_type("backoff", self.backoff, Backoff)
        if self.breaker is not None:
            check_type("breaker", self.breaker, CircuitBreaker)
        if self.shedding is not None:
            check_type("shedding", self.shedding, CoDel)
        check_type("observers", self.observers, Iterable)
        observers = tuple(self.observers)
        for observer in observers:
            check_type("each of observers", observer, PoolObserver)
        object.__setattr__(self, "observers", observers)


def settings_from(options: PoolOptions) -> Settings:
    """Return the checked options.

    Raises:
        TypeError: an option does not exist, or is of the wrong type.
        ValueError: an option has a value that is not allowed.
    """
    known = [field.name for field in fields(Settings)]
    for name in options:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
            raise TypeError(f"a pool has no option {name!r}; {hint}")
    return Settings(**options)


def check_sizes(min_size: int, max_size: int) -> None:
    """Raise unless ``0 <= min_size <= max_size`` and ``max_size >= 1``."""
    check_count("min_size", min_size, least=0)
    check_count("max_size", max_size, least=1)
    if min_size > max_size:
        raise ValueError(f"min_size must be at most max_size ({max_size}), not {min_size}")
