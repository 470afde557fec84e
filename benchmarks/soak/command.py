"""The command line."""

from __future__ import annotations

import argparse
import logging
import random
import time
import warnings

from .display import open_display
from .listener import Listener
from .run import soak
from .tally import Tally

DESCRIPTION = (
    "The long run: random clients, owners and faults against real pools on a mock clock, for a million operations."
)


def main(arguments: list[str] | None = None) -> int:
    """Run, and return the exit code: 1 if the pool broke a promise."""
    options = parse(arguments)
    listener = Listener()
    logger = logging.getLogger("nimblepool")
    logger.addHandler(listener)
    began = time.monotonic()
    tally = Tally()
    with open_display(options.operations) as show, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # leases are lost on purpose
        show.say(f"seed {options.seed}")
        wrong = soak(options, show, listener, tally)
        tally.report(listener, time.monotonic() - began, show)
        show.say("\nno violation" if wrong is None else f"\n{wrong}\nVIOLATION (seed {options.seed})")
    logger.removeHandler(listener)
    return 0 if wrong is None else 1


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="soak", description=DESCRIPTION)
    parser.add_argument("--operations", type=int, default=1_000_000, help="how many in all (1,000,000)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32), help="default: a new one")
    parser.add_argument("--round", type=int, help="play this one alone, as a violation says")
    return parser.parse_args(arguments)
