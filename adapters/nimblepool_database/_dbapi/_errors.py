"""The adapter's own errors, which are the driver's as well."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nimblepool import PoolError


@cache
def variant(ours: type[PoolError], theirs: type[Exception] | None) -> type[PoolError]:
    """Return a class that is both ``ours`` and ``theirs``: whoever catches the driver's errors catches it, too."""
    if theirs is None:
        return ours
    return type(ours.__name__, (ours, theirs), {"__module__": ours.__module__, "__doc__": ours.__doc__})
