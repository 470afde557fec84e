"""Checks of what users pass, with errors that say what is allowed."""

from __future__ import annotations

from math import inf, isnan

from nimblepool import DEFAULT, Default


def check_positive(name: str, value: object) -> None:
    """Raise unless ``value`` is a number of seconds greater than 0, infinity included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if isnan(value) or value <= 0:
        raise ValueError(f"{name} must be more than 0 (seconds; math.inf for no limit), not {value!r}")


def check_count(name: str, value: object) -> None:
    """Raise unless ``value`` is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be 1 or more, not {value}")


def check_callable(name: str, value: object) -> None:
    """Raise unless ``value`` is ``None`` or can be called."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be an async function or None, not {value!r}")


def seconds(timeout: float | Default | None, default: float) -> float:
    """Return how many seconds are meant; infinity for ``None``."""
    if timeout is DEFAULT:
        return default
    if timeout is None:
        return inf
    if timeout != 0:
        check_positive("timeout", timeout)
    return float(timeout)
