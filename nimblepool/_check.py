"""Checks of the values that users pass, with errors that say what is allowed."""

from __future__ import annotations

from math import inf, isnan


def check_seconds(name: str, value: object, *, zero: bool = True) -> None:
    """Raise unless ``value`` is a number of seconds, infinity included; zero only if it makes sense."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if isnan(value) or value < 0 or (value == 0 and not zero):
        allowed = "0 or more" if zero else "more than 0"
        raise ValueError(f"{name} must be {allowed} (seconds; math.inf for no limit), not {value!r}")


def or_no_limit(value: float | None) -> float:
    """Return ``value``; infinity for ``None``, which is how an option is switched off."""
    return inf if value is None else value


def check_optional_seconds(name: str, value: float | None, *, zero: bool = True) -> float:
    """Return ``value``, or infinity for ``None``."""
    if value is not None:
        check_seconds(name, value, zero=zero)
    return or_no_limit(value)


def check_count(name: str, value: object, *, least: int) -> None:
    """Raise unless ``value`` is a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be {least} or more, not {value}")


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        choices = " or ".join(repr(choice) for choice in allowed)
        raise ValueError(f"{name} must be {choices}, not {value!r}")


def check_type(name: str, value: object, kind: type) -> None:
    """Raise unless ``value`` is an instance of ``kind``."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {kind.__name__}, not {value!r}")
