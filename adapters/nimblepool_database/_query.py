"""The options in the query of a database URL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def options_in(query: str, parsers: Mapping[str, Callable[[str, str], Any]], database: str) -> dict[str, Any]:
    """Return the options that ``query`` gives, each as its parser reads it.

    Raises:
        ValueError: an option that does not exist, stands there twice, or cannot have this value.
    """
    options: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in parsers:
            raise ValueError(f"a {database} URL has the options {', '.join(parsers)}, not {name!r}")
        if name in options:
            raise ValueError(f"the URL gives {name} twice")
        options[name] = parsers[name](name, text)
    return options
