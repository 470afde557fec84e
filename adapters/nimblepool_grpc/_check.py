"""Checks of what users pass, with errors that say what is allowed."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from math import inf, isnan
from typing import Any, Final, cast

PAIR: Final = 2


def check_count(name: str, value: object) -> None:
    """Raise unless ``value`` is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be 1 or more, not {value}")


def check_optional(name: str, value: object, kind: type, what: str) -> None:
    """Raise unless ``value`` is ``None`` or of ``kind``; the value may be a secret, and is not quoted."""
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{name} must be {what} or None, not {type(value).__name__}")


def checked_timeout(timeout: object) -> float | None:
    """Return the seconds that are meant; ``None`` for no limit."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r}")
    if isnan(timeout):
        raise ValueError("timeout must be a number of seconds, not nan")
    return None if timeout == inf else float(timeout)


def checked_pairs(name: str, pairs: object) -> tuple[tuple[str, Any], ...]:
    """Return the pairs of a name and a value; the values may be secrets, and are not quoted."""
    if isinstance(pairs, str | bytes | Mapping) or not isinstance(pairs, Iterable):
        raise TypeError(f"{name} must be pairs of a name and a value, not {_kind(pairs)}")
    return tuple(_checked_pair(name, pair) for pair in cast("Iterable[object]", pairs))


def check_text(name: str, value: object, what: str) -> None:
    """Raise unless ``value`` is a string, and not an empty one."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be {what}, not {_kind(value)}")
    if not value:
        raise ValueError(f"{name} must be {what}; it is empty")


def check_requests(requests: object) -> None:
    """Raise unless ``requests`` can be iterated over, in either way, or is ``None``."""
    if requests is not None and not isinstance(requests, AsyncIterable | Iterable):
        raise TypeError(
            f"the requests must be an iterable, an asynchronous one, or None, not {type(requests).__name__}"
        )


def _checked_pair(name: str, pair: object) -> tuple[str, Any]:
    parts = cast("Sequence[Any]", pair) if isinstance(pair, tuple | list) else ()
    if len(parts) != PAIR or not isinstance(parts[0], str):
        raise TypeError(f"{name} must be pairs of a name and a value; one of them is not")
    return parts[0], parts[1]


def _kind(value: Any) -> str:  # noqa: ANN401 - it is asked because it may be anything
    return str(type(value).__name__)
