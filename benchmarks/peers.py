"""The same loop over the peers, with stub resources: 100 tasks on 10, each holding its resource for one step."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from .measure import Dropped, best, compare, interleave, summarize
from .process import open_process
from .section import Row, Section

if TYPE_CHECKING:
    from collections.abc import Callable

    from .section import Effort

TASKS = 100
LEASES = 5_000
US = "nimblepool"
MODULES = (
    "asyncpg_pool",
    "psycopg_pool",
    "sqlalchemy_pool",
    "redis_pool",
    "generic_pool",
    "aiosqlite_pool",
    "httpcore_pool",
    "httpcore2_pool",
    "asyncio_alone",
)
BUDGETED = (
    "asyncpg.Pool",
    "psycopg_pool",
    "SQLAlchemy AsyncAdaptedQueuePool",
    "redis-py BlockingConnectionPool",
    "generic-connection-pool",
    "aiosqlitepool",
)
MOST = 0.35


def measure_peers(effort: Effort) -> Section:
    """Compare the pool with its peers, each in a process of its own."""
    section = Section("peers", f"Peers with stub resources, {TASKS} tasks on 10, one step of the event loop a lease")
    leases = effort.leases(TASKS, LEASES)
    dropped: dict[str, str] = {}
    with ExitStack() as stack:
        process = stack.enter_context(open_process("nimble", "primitives"))
        section.versions |= process.versions
        sides = {
            US: process.sampler(US, tasks=TASKS, leases=leases),
            "trio's checkpoint alone": process.sampler("trio's checkpoint alone", tasks=TASKS, leases=leases),
        }
        for module in MODULES:
            try:
                sides |= _enter(stack, module, leases, section)
            except Dropped as reason:
                dropped[module] = str(reason)
        samples = interleave(sides, effort.rounds, dropped)
    section.notes = [f"left out: {name}: {reason}" for name, reason in dropped.items()]
    ours = samples.pop(US)
    budgeted = {name: samples[name] for name in BUDGETED if name in samples}
    closest = best(budgeted) if budgeted else None
    section.rows = [
        Row(
            US,
            summarize(ours),
            name,
            summarize(theirs),
            compare(ours, theirs),
            MOST if name == closest else None,
        )
        for name, theirs in samples.items()
    ]
    return section


def _enter(stack: ExitStack, module: str, leases: int, section: Section) -> dict[str, Callable[[], float]]:
    """Start a peer's process.

    Raises:
        Dropped: it cannot take part.
    """
    process = stack.enter_context(open_process(module))
    section.versions |= process.versions
    return {name: process.sampler(name, tasks=TASKS, leases=leases) for name in process.names}
