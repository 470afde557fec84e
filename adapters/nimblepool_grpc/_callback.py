"""Done callbacks, which are told of a call when it has ended."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from ._types import DoneCallback

logger = logging.getLogger("nimblepool")


@trio.lowlevel.enable_ki_protection  # a Ctrl-C is not the callback's, and must not end in the log
def tell(callback: DoneCallback, call: object) -> None:
    """Tell ``callback`` of ``call``; what it raises is logged, for it would come out of whatever ends the call."""
    try:
        callback(call)
    except BaseException:
        logger.exception("a done callback of %r failed", call)
