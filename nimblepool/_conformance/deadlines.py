"""The deadlines of the callbacks that wait: those that a pool has by default."""

from __future__ import annotations

from inspect import isawaitable
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from nimblepool._options import Settings

from .complaint import BrokenContractError, broken

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nimblepool._worker import PoolWorker

R = TypeVar("R")
T = TypeVar("T")

_DEFAULTS: Final = Settings()
DEADLINES: Final = {
    "init": _DEFAULTS.init_timeout,
    "ping": _DEFAULTS.ping_timeout,
    "reset": _DEFAULTS.reset_timeout,
    **dict.fromkeys(("terminate", "stop", "watch"), _DEFAULTS.terminate_timeout),
}
"""Seconds; for ``watch`` those in which it ends once it is cancelled."""


async def within_deadline(worker: PoolWorker[R], callback: str, call: Callable[[], Awaitable[T]], *, remedy: str) -> T:
    """Return what the asynchronous ``call`` of ``callback`` returns, if it does so in time."""
    try:
        with trio.move_on_after(DEADLINES[callback]):
            awaitable: object = call()
            if not isawaitable(awaitable):
                raise broken(worker, callback, "is a plain function", "write it as 'async def'")
            answer: T = await awaitable
            return answer
    except BrokenContractError:
        raise
    except Exception as error:
        raise broken(worker, callback, f"raised {error!r}", remedy) from error
    raise broken(worker, callback, f"took longer than {DEADLINES[callback]:g} s, its default deadline", remedy)
