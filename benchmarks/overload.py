"""CoDel against a plain queue with timeouts, at half to four times the load the pool can carry.

Everything runs on trio's `MockClock`, so that a minute of overload takes seconds and the machine's speed plays no part.
Clients come at random (Poisson), use a resource for 10 to 30 ms, and want their answer within one second: a service
does not notice that its client has gone, and what it finishes later was done in vain. Goodput is what was done in time,
as a part of what the pool can do or, below full load, of what was asked. The plain queue is measured with that second
as its timeout, the longest wait that can be of any use, and with half of it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import TYPE_CHECKING, TypedDict

import trio
import trio.testing

from nimblepool import CheckoutTimeout, CoDel, PoolOptions, PoolOverloaded, PoolWorker, open_pool

from .measure import Figure
from .section import Row, Section

if TYPE_CHECKING:
    from nimblepool import Pool

    from .section import Effort

LOADS = (0.5, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
RESOURCES = 10
SERVICE = 0.02
PATIENCE = 1.0
WARM_UP = 5.0
SEED = 1

GOODPUT, WAIT = "goodput", "median wait"
CODEL, PATIENT, BRISK = "CoDel", "plain, timeout 1 s", "plain, timeout 0.5 s"


class Terms(TypedDict):
    """How a queue treats those who wait."""

    shedding: CoDel | None
    timeout: float


QUEUES: dict[str, Terms] = {
    CODEL: {"shedding": CoDel(), "timeout": PATIENCE},
    PATIENT: {"shedding": None, "timeout": PATIENCE},
    BRISK: {"shedding": None, "timeout": PATIENCE / 2},
}


class StubWorker(PoolWorker[object]):
    """Opens plain objects."""

    async def init(self) -> object:
        """Open one."""
        return object()


@dataclass
class Outcome:
    """What became of the clients that came after the warm-up."""

    came: int = 0
    done: int = 0
    refused: int = 0
    waits: list[float] = field(default_factory=list)


@dataclass
class Storm:
    """Clients that come at a rate, for so many seconds."""

    load: float
    seconds: float
    shedding: CoDel | None
    timeout: float

    async def blow(self) -> Outcome:
        """Let them all come, and wait for the last."""
        dice = random.Random(SEED)  # noqa: S311 - draws times, not secrets
        outcome = Outcome()
        options = PoolOptions(max_size=RESOURCES, checkout_timeout=self.timeout, shedding=self.shedding)
        async with open_pool(StubWorker(), **options) as pool:
            await pool.wait_ready(RESOURCES)
            async with trio.open_nursery() as nursery:
                end = trio.current_time() + self.seconds
                counted_from = trio.current_time() + WARM_UP
                while trio.current_time() < end:
                    await trio.sleep(dice.expovariate(self.load * RESOURCES / SERVICE))
                    ignored = trio.current_time() < counted_from
                    service = dice.uniform(0.5 * SERVICE, 1.5 * SERVICE)
                    nursery.start_soon(visit, pool, service, Outcome() if ignored else outcome)
        return outcome


async def visit(pool: Pool[object], service: float, outcome: Outcome) -> None:
    """Be a client."""
    outcome.came += 1
    began = trio.current_time()
    try:
        async with pool.checkout():
            outcome.waits.append(trio.current_time() - began)
            await trio.sleep(service)
    except (CheckoutTimeout, PoolOverloaded) as error:
        outcome.refused += isinstance(error, PoolOverloaded)
    else:
        outcome.done += trio.current_time() - began <= PATIENCE


def measure_overload(effort: Effort) -> Section:
    """Compare all three at each load."""
    section = Section("overload", "Goodput and wait under load, CoDel against a plain queue (virtual time)")
    seconds = 25.0 if effort.full else 10.0
    for load in LOADS if effort.full else LOADS[::3]:
        outcomes = {
            who: trio.run(Storm(load, seconds, **terms).blow, clock=trio.testing.MockClock(autojump_threshold=0))
            for who, terms in QUEUES.items()
        }
        figures = {who: _figures(outcome, seconds) for who, outcome in outcomes.items()}
        ours = figures.pop(CODEL)
        for title, value in ours.items():
            unit = "%" if title == GOODPUT else "ms"
            for who, theirs in figures.items():
                section.rows.append(Row(f"{load:g}x: {title}", _exact(value), who, _exact(theirs[title]), unit=unit))
        for who, values in {CODEL: ours, **figures}.items():
            for title, value in values.items():
                section.series.setdefault(f"{title}: {who}", []).append((load, value))
    section.notes.append(
        "A plain queue keeps its goodput if its timeout leaves time to work; the wait becomes the timeout."
    )
    return section


def _figures(outcome: Outcome, seconds: float) -> dict[str, float]:
    possible = min(outcome.came, RESOURCES / SERVICE * (seconds - WARM_UP))
    return {
        GOODPUT: 100 * outcome.done / possible,
        WAIT: 1_000 * median(outcome.waits),
        "99th percentile of waits": 1_000 * quantiles(outcome.waits, n=100)[98],
    }


def _exact(value: float) -> Figure:
    return Figure(value, value, value, 1)
