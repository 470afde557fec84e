"""When a call must have ended, and who says so."""

from __future__ import annotations

import sys
import time
from math import inf
from typing import Final, final

import trio

MARGIN: Final = 0.1
"""Seconds by which an RPC's deadline and trio's own, of the same moment, may be felt apart."""
FOREVER: Final = 1e9
"""Seconds, some thirty years. The core's clock overflows at a few times that, and then a deadline is long past."""


@final
class Deadline:
    """When a call must have ended.

    Args:
        at: the moment, on trio's clock.
        is_trios: whether it is that of the cancel scopes around the call, and not the call's own ``timeout``.
    """

    __slots__ = ("at", "is_trios")

    def __init__(self, at: float, *, is_trios: bool) -> None:
        self.at = at
        self.is_trios = is_trios

    @property
    def left(self) -> float:
        """Seconds until then."""
        return self.at - trio.current_time()

    @property
    def has_passed(self) -> bool:
        """Whether it is too late to begin; if the deadline is trio's, the next checkpoint will tell."""
        return not self.is_trios and self.left <= 0

    @property
    def on_the_clock(self) -> float | None:
        """The moment on the clock of `time.time`, which is the core's; ``None`` if the core is to know of none.

        A deadline of trio's on a mocked clock says nothing about real time, so trio alone sees to it.
        """
        left = self.left
        return None if left > FOREVER or (self.is_trios and _is_mocked()) else time.time() + left

    async def let_trio_win(self) -> None:
        """If trio is just about to cancel the task, let it: ``fail_after`` shall raise what it always raises.

        It was the RPC that was felt to end first, and only by a hair. It may also have ended long before, because the
        server said so, or the scope may have been given more time.
        """
        if self.is_trios and self.left < MARGIN:
            await trio.sleep_until(self.at + MARGIN)


UNLIMITED: Final = Deadline(inf, is_trios=False)


def deadline_of(timeout: float | None, *, scoped: bool) -> Deadline:
    """Return when a call that begins now must have ended.

    Args:
        timeout: the call's own limit in seconds.
        scoped: whether the cancel scopes that the caller is in outlast the call, so that their deadline is the call's.
    """
    scope = trio.current_effective_deadline() if scoped else inf
    if timeout is None:
        return UNLIMITED if scope == inf else Deadline(scope, is_trios=True)
    own = trio.current_time() + timeout
    return Deadline(own, is_trios=False) if own <= scope else Deadline(scope, is_trios=True)


def _is_mocked() -> bool:
    """Tell whether trio runs on a `trio.testing.MockClock`, which needs no import if nobody has made one."""
    testing = sys.modules.get("trio.testing")
    return testing is not None and isinstance(trio.lowlevel.current_clock(), testing.MockClock)
