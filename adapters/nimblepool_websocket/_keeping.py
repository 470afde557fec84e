"""Sockets that are kept open for a while without being asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

if TYPE_CHECKING:
    from nimblepool import Pool

CHANGEABLE: Final = {"open", "paused"}
"""Where a pool is still to be told what to keep open."""


@final
class KeptOpen:
    """Raises a pool's ``min_size`` to ``size`` while somebody needs it, and then puts back what was there.

    Invariants:
        _users counts those who need it
        while it is not 0, _before is the ``min_size`` that the pool had, and _raised what it got
    """

    def __init__(self, pool: Pool[Any], size: int) -> None:
        self._pool = pool
        self._size = size
        self._users = 0
        self._before = 0
        self._raised = 0

    def begin(self) -> None:
        """Hear that one more needs it."""
        self._users += 1
        stats = self._pool.stats
        if self._users == 1:
            self._before = stats.min_size
            self._raised = max(stats.min_size, min(self._size, stats.max_size))
            if stats.status in CHANGEABLE:
                self._pool.resize(min_size=self._raised)

    def end(self) -> None:
        """Hear that one needs it no longer."""
        self._users -= 1
        stats = self._pool.stats
        # If somebody has resized the pool meanwhile, that counts.
        if not self._users and stats.status in CHANGEABLE and stats.min_size == self._raised:
            self._pool.resize(min_size=min(self._before, stats.max_size))
