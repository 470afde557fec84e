"""Waiting for a lock that somebody outside the pool holds."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, TypeVar

import trio

from ._errors import is_busy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

FIRST_PAUSE = 0.001
"""Seconds before the second attempt; every further pause is twice as long."""
LONGEST_PAUSE = 0.025
"""Seconds between attempts at most."""


async def until_free(attempt: Callable[[], Awaitable[T]], patience: float) -> T:
    """Return what ``attempt()`` returns, trying again while the database is locked, for about ``patience`` seconds.

    Between attempts it can be cancelled at once; during one, as ``attempt`` has it.

    Raises:
        sqlite3.OperationalError: "database is locked", from the last attempt.
    """
    deadline = trio.current_time() + patience
    pause = FIRST_PAUSE
    while True:
        try:
            return await attempt()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or trio.current_time() + pause > deadline:
                raise
        await trio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
