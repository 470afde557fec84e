"""Who is opening resources, the largest pool first."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from ._quota import Share


@final
class Openers:
    """The shares under which resources are being opened. O(log n) amortized; entries that are out of date go lazily.

    Invariants:
        an entry counts only if its size is the share's ``opener_size``
        every share with an opening under way has one that counts, and its size is not less than the share's
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Share]] = []
        self._serial = count()
        self._crowded = 64

    def add(self, share: Share) -> None:
        """Note that ``share`` is about to grow by an opening."""
        if len(self._heap) > self._crowded:
            self._tidy()
        size = share.lasting + 1
        if share.opener_size is None or size > share.opener_size:
            self._push(share, size)

    def largest(self) -> Share | None:
        """Return the largest share with an opening under way."""
        while self._heap:
            negative, _, share = self._heap[0]
            counts = share.opener_size == -negative
            if counts and share.is_opening and share.lasting == -negative:
                return share
            heappop(self._heap)
            if counts:
                share.opener_size = None
                if share.is_opening:
                    self._push(share, share.lasting)
        return None

    def _push(self, share: Share, size: int) -> None:
        share.opener_size = size
        heappush(self._heap, (-size, next(self._serial), share))

    def _tidy(self) -> None:
        shares = {share for _, _, share in self._heap}
        self._heap.clear()
        for share in shares:
            share.opener_size = None
            if share.is_opening:
                self._push(share, share.lasting)
        self._crowded = 2 * len(self._heap) + 64
