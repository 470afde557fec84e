"""Closing several pools as if they were one."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable


class Closable(Protocol):
    """A pool, or one of pools."""

    async def close(self) -> None:
        """Close it; idempotent."""


@asynccontextmanager
async def closing_together(*pools: Closable, first: Callable[[], object] = lambda: None) -> AsyncGenerator[None]:
    """Close all ``pools`` at the same time at the end of the block: a silent peer of each costs its time only once.

    The pools' own blocks stand around this one, and find nothing to do. The block's exception comes out as it went in.

    Args:
        pools: what is closed.
        first: called before that.
    """
    try:
        yield
    except BaseException:
        first()
        with suppress(trio.Cancelled):
            await _close(pools)
        raise
    first()
    await _close(pools)


async def _close(pools: tuple[Closable, ...]) -> None:
    try:
        async with trio.open_nursery() as nursery:
            for pool in pools:
                nursery.start_soon(pool.close)
    except BaseExceptionGroup as group:
        # Cancellation, Ctrl-C, or what a callback raised to end the program; the strongest speaks for all.
        strong = [error for error in group.exceptions if not isinstance(error, trio.Cancelled)]
        raise (strong or group.exceptions)[0] from None
