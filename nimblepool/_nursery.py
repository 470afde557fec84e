"""A nursery for the pool's own tasks that leaves the exceptions of its block alone."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_quiet_nursery() -> AsyncGenerator[trio.Nursery]:
    """Run a nursery whose tasks end with the block.

    Its tasks are the pool's: they are shielded, end when the pool is closed, and raise nothing but what ends the
    program. So the block's exception need not be gathered with theirs: the nursery is left without it, and Python
    raises it afterwards as it was.
    """
    manager = trio.open_nursery()
    nursery = await manager.__aenter__()
    try:
        yield nursery
    finally:
        try:
            await manager.__aexit__(None, None, None)
        except BaseExceptionGroup as group:
            first, *others = group.exceptions
            if any(type(other) is not type(first) for other in others):
                raise
            raise first from None
