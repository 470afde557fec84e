"""Which URL belongs to which database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._sqlite._worker import SQLiteWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ._worker import DatabaseWorker

BACKENDS: Mapping[str, Callable[[str], DatabaseWorker[Any]]] = {
    "sqlite": SQLiteWorker.from_url,
}


def worker_for(url: str) -> DatabaseWorker[Any]:
    """Make the worker for ``url``.

    Raises:
        ValueError: the scheme is unknown, or the rest of the URL makes no sense to its database.
    """
    scheme, separator, _ = url.partition(":")
    if not separator or scheme not in BACKENDS:
        known = ", ".join(f"{name}:///path" for name in BACKENDS)
        # The URL itself is not repeated: it may hold a password.
        raise ValueError(f"a database URL begins with one of {known}; this one does not")
    return BACKENDS[scheme](url)
