"""The tasks of a channel's own."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_task_group() -> AsyncGenerator[trio.Nursery]:
    """Run a nursery whose tasks are cancelled at the end of the block.

    They raise nothing but what ends the program. So the exception of the block need not be gathered with theirs: the
    nursery is left without it, and Python raises it afterwards as it was.
    """
    manager = trio.open_nursery(strict_exception_groups=True)
    nursery = await manager.__aenter__()
    try:
        yield nursery
    finally:
        nursery.cancel_scope.cancel()
        try:
            await manager.__aexit__(None, None, None)
        except BaseExceptionGroup as group:
            if len(group.exceptions) != 1:
                raise
            raise group.exceptions[0] from None
