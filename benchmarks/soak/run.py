"""A run: one round after the other, until the operations are done."""

from __future__ import annotations

import faulthandler
import gc
import os
import random
import signal
import sys
import traceback
from itertools import count
from typing import TYPE_CHECKING

import trio
from trio._core import _run as trio_scheduler
from trio.testing import MockClock

from .memory import Memory
from .round import Round

if TYPE_CHECKING:
    import argparse

    from .display import Display
    from .listener import Listener
    from .scene import Scene
    from .tally import Tally

ROUND = (1_000, 8_000)
"""Operations in a round."""
REAL_PATIENCE = 120.0
"""Real seconds after which a round is stuck in a loop, or in what cannot be cancelled."""


def soak(options: argparse.Namespace, show: Display, listener: Listener, tally: Tally) -> str | None:
    """Play rounds until the operations are done, and return what went wrong, with the way to see it again."""
    numbers = count() if options.round is None else iter([options.round])
    memory = Memory()
    for number in numbers:
        try:
            tally.add(play_round(options.seed, number, listener))
        except BaseException:  # noqa: BLE001 - whatever it is, it comes with the seed
            return f"{traceback.format_exc()}\nto see it again: --seed {options.seed} --round {number}"
        gc.collect()
        memory.measure(tally.operations / options.operations)
        show.progress(tally)
        if tally.operations >= options.operations:
            break
    show.say(str(memory))
    return memory.complaint()


def play_round(seed: int, number: int, listener: Listener) -> Scene:
    """Play round ``number``: the same one for the same seed.

    Raises:
        BaseException: the pool broke a promise.
    """
    game = Round(f"{seed}/{number}", random.Random(f"{seed}/{number}/size").randint(*ROUND))  # noqa: S311 - no secret
    # trio draws the order in which tasks run; this is how Hypothesis makes it draw the same again.
    trio_scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # noqa: SLF001
    trio_scheduler._r.seed(f"{seed}/{number}/trio")  # noqa: SLF001
    give_up_later(game, f"round {number} does not end; to see it again: --seed {seed} --round {number}")
    # By itself it collects at times that depend on what was before, and no round would come again: the round does it.
    gc.disable()
    try:
        trio.run(game.play, clock=MockClock(autojump_threshold=0))
    finally:
        gc.enable()
        signal.setitimer(signal.ITIMER_REAL, 0.0)
    if listener.violations:
        raise listener.violations[0]
    return game.scene


def give_up_later(game: Round, why: str) -> None:
    """End the program after `REAL_PATIENCE`, with ``why`` and where: an exception would go astray in some callback."""

    def give_up(*_: object) -> None:
        if game.wrong is not None:
            traceback.print_exception(game.wrong)
        sys.stderr.write(f"\n{why}\n")
        sys.stderr.flush()
        faulthandler.dump_traceback()
        os._exit(1)

    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, REAL_PATIENCE)
