"""The options of a round's pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nimblepool import Backoff, CircuitBreaker, CoDel, PoolOptions

if TYPE_CHECKING:
    import random

    from .witness import Witness


def draw_options(rng: random.Random, witness: Witness) -> PoolOptions:
    """Draw the options of a pool; most of what is optional is off most of the time."""
    max_size = rng.choice([1, 1, 2, 3, 5, 8])
    options: PoolOptions = {
        "min_size": rng.choice([0, 0, 1, max_size]),
        "max_size": max_size,
        "order": rng.choice(["lifo", "fifo"]),
        "strict_size": rng.random() < 0.3,  # noqa: PLR2004
        "checkout_timeout": rng.choice([None, 0.5, 5.0, 60.0]),
        "init_timeout": rng.choice([1.0, 3.0]),
        "reset_timeout": 1.0,
        "ping_timeout": 1.0,
        "terminate_timeout": 1.0,
        "ping_batch": rng.choice([1, 4]),
        "on_open_failure": rng.choice(["raise", "wait"]),
        "on_death": rng.choice(["remove", "cancel"]),
        "backoff": Backoff(base=0.5, cap=8.0, jitter=rng.choice(["full", "none"])),
        "breaker": rng.choice([None, CircuitBreaker(1), CircuitBreaker(5)]),
        "observers": rng.choice([(), (witness,)]),
    }
    options.update(draw_extras(rng))
    return options


def draw_extras(rng: random.Random) -> PoolOptions:
    """Draw the options that are off by default."""

    def maybe(*values: float) -> float | None:
        return rng.choice([None, None, *values])

    def maybe_count(*values: int) -> int | None:
        return rng.choice([None, None, *values])

    return {
        "max_opening": maybe_count(1, 2),
        "max_waiting": maybe_count(1, 5, 20),
        "max_hold": maybe(0.2, 1.0),
        "max_idle": maybe(0.0, 0.5, 5.0),
        "max_age": maybe(1.0, 20.0),
        "max_uses": maybe_count(1, 3, 50),
        "ping_every": maybe(0.3, 3.0),
        "ping_after": maybe(0.0, 0.1, 1.0),
        "close_grace": maybe(0.0, 0.5),
        "shedding": rng.choice([None, None, CoDel(target=0.05, interval=1.0)]),
    }
