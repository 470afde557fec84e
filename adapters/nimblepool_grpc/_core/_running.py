"""Standing in for asyncio's running loop, for as long as cygrpc looks for one."""

from __future__ import annotations

import asyncio.events
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ["get_running", "running", "set_running"]

# Both are listed in the module's `__all__`, for those who write event loops.
get_running = cast("Callable[[], object]", asyncio.events._get_running_loop)  # noqa: SLF001
set_running = cast("Callable[[object], None]", asyncio.events._set_running_loop)  # noqa: SLF001


@contextmanager
def running(loop: object) -> Generator[None]:
    """Let ``loop`` be the running one within; a real one may run around it, with trio as its guest."""
    outer = get_running()
    set_running(loop)
    try:
        yield
    finally:
        set_running(outer)
