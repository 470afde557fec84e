"""The deadlines of the calls on one socket."""

from __future__ import annotations

from itertools import takewhile
from math import inf
from typing import TYPE_CHECKING, final

import trio

if TYPE_CHECKING:
    from ._call import Call


@final
class Expiry:
    """One timer for all calls: most have the same timeout, and so they expire in the order in which they came.

    A cancel scope around each would cost a sixth of a request.

    Invariants:
        _waiting has its calls in the order of their deadlines, the last of which is _latest
        _nap ends, while this runs, no later than the first of them
    """

    def __init__(self) -> None:
        self._waiting: dict[Call, float] = {}
        self._latest = -inf
        self._nap = trio.CancelScope()

    def add(self, call: Call, deadline: float) -> bool:
        """Take over the deadline of ``call``; ``False`` if it is earlier than that of one who came before."""
        if self._waiting and deadline < self._latest:
            return False
        self._latest = deadline
        self._waiting[call] = deadline
        if deadline < self._nap.deadline:  # noqa: PLR1730 - to set it costs
            self._nap.deadline = deadline
        return True

    def drop(self, call: Call) -> None:
        """Watch over ``call`` no longer, if this did."""
        self._waiting.pop(call, None)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Expire calls for ever."""
        while True:
            with trio.CancelScope(deadline=next(iter(self._waiting.values()), inf)) as self._nap:
                await trio.sleep_forever()
            self._expire(trio.current_time())

    def _expire(self, now: float) -> None:
        # Gathered first: to look for the first key after each deletion would be to walk over all deleted ones.
        for call, _ in list(takewhile(lambda item: item[1] <= now, self._waiting.items())):
            del self._waiting[call]
            call.expire()
