"""What the callbacks of a worker do wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nimblepool import Skip, Verdict
from nimblepool.testing import Fail, Hang, Slow

if TYPE_CHECKING:
    import random
    from collections.abc import Callable


class Fault(Exception):  # noqa: N818 - it stands for any error of a driver or a client
    """What goes wrong on purpose."""


def draw_delay(rng: random.Random) -> object:
    """Draw what an asynchronous callback does wrong."""
    return rng.choice(
        [
            Fail(Fault("at once")),
            Fail(Fault("at once")),
            Slow(rng.uniform(0.0, 0.5)),
            Slow(rng.uniform(0.0, 2.0), Fail(Fault("after a while"))),
            Slow(5.0),  # past every deadline
            Hang(),
        ]
    )


def draw_verdict(rng: random.Random) -> object:
    """Draw what a deciding callback does wrong."""
    failures = (Fail(Fault("undecided")), "nonsense")
    return rng.choice([Verdict.RESET, Verdict.RESET, Verdict.RESET, Verdict.REMOVE, Verdict.REFRESH, *failures])


def draw_checkout(rng: random.Random) -> object:
    """Draw the same, or a refusal of this one client."""
    return Fail(Skip(Fault("not for you"))) if rng.random() < 0.2 else draw_verdict(rng)  # noqa: PLR2004


def draw_capacity(rng: random.Random) -> object:
    """Draw a new capacity, or something that is none."""
    return rng.choice([0, 1, 1, 2, 2, 3, 4, 4, -1, "many", Fail(Fault("uncounted"))])


def draw_request(rng: random.Random) -> object:
    """Draw a refusal or another request."""
    return rng.choice([Fail(Fault("refused")), "another request"])


def draw_deafness(_: random.Random) -> object:
    """Fail to listen."""
    return Fail(Fault("deaf"))


MISTAKES: dict[str, Callable[[random.Random], object]] = {
    **dict.fromkeys(("init", "terminate", "reset", "ping", "watch", "stop"), draw_delay),
    "checkout": draw_checkout,
    "checkin": draw_verdict,
    "message": draw_verdict,
    "capacity": draw_capacity,
    "enqueue": draw_request,
    "cancelled": draw_deafness,
}
RATES = (0.0, 0.0, 0.003, 0.03, 0.3)
"""How often a callback goes wrong, in the weathers that there are."""
