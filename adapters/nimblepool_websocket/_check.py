"""Checks of what users pass, with errors that say what is allowed."""

from __future__ import annotations

from math import inf, isnan

from nimblepool import DEFAULT, Default


def check_seconds(name: str, value: object, *, zero: bool = False) -> None:
    """Raise unless ``value`` is a number of seconds, infinity included; zero only if it makes sense."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if isnan(value) or value < 0 or (value == 0 and not zero):
        allowed = "0 or more" if zero else "more than 0"
        raise ValueError(f"{name} must be {allowed} (seconds; math.inf for no limit), not {value!r}")


def check_count(name: str, value: object, *, least: int = 1) -> None:
    """Raise unless ``value`` is a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be {least} or more, not {value}")


def check_callable(name: str, value: object) -> None:
    """Raise unless ``value`` is ``None`` or can be called."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be an async function or None, not {value!r}")


def check_function(name: str, value: object) -> None:
    """Raise unless ``value`` can be called."""
    if not callable(value):
        raise TypeError(f"{name} must be a function, not {value!r}")


def seconds(timeout: float | Default | None, default: float) -> float:
    """Return how many seconds are meant; infinity for ``None``."""
    if timeout is DEFAULT:
        return default
    if timeout is None:
        return inf
    check_seconds("timeout", timeout, zero=True)
    return float(timeout)
