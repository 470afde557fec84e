"""Checkout and checkin against trio's primitives, from 1 to 10,000 tasks on 10 resources; then each option."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .measure import compare, interleave, summarize
from .process import open_process
from .section import Row, Section

if TYPE_CHECKING:
    from .section import Effort

CROWDS = (1, 100, 1_000, 10_000)
BUDGETS = {1: 1.25, 100: 1.1, 1_000: 1.0, 10_000: 1.0}
FLAT = 1.25
"""The design says "flat" and no figure; this is ours: no more than a quarter dearer at 10,000 tasks than at 100."""

SEMAPHORE = "trio.Semaphore"
PRIMITIVES = (SEMAPHORE, "trio.Semaphore, async with", "trio.CapacityLimiter", "memory channel")
ALONE = "trio's checkpoint alone"
TURNSTILE = "an async with that is a checkpoint"
LEASES = 20_000
OPTIONS = (
    "run",
    "acquire",
    "keyed",
    "shared, capacity 100",
    "observer",
    "max_hold",
    "max_idle",
    "max_age",
    "ping_every",
    "CoDel",
)


def measure_lending(effort: Effort) -> Section:
    """Compare the pool with the primitives."""
    section = Section("lending", "Checkout and checkin, default options, 10 resources, against trio's primitives")
    crowds = CROWDS if effort.full else CROWDS[:-1]
    with open_process("nimble", "primitives") as process:
        section.versions = process.versions
        samples = interleave(
            {
                f"{name}, {tasks}": process.sampler(name, tasks=tasks, leases=effort.leases(tasks, LEASES))
                for tasks in crowds
                for name in ("pool", *PRIMITIVES)
            },
            effort.rounds,
        )
    for tasks in crowds:
        ours = samples[f"pool, {tasks}"]
        for name in PRIMITIVES:
            theirs = samples[f"{name}, {tasks}"]
            most = BUDGETS[tasks] if name == SEMAPHORE else None
            section.rows.append(
                Row(_crowd(tasks), summarize(ours), name, summarize(theirs), compare(ours, theirs), most)
            )
    for name, most in (("pool", FLAT if effort.full else None), (SEMAPHORE, None)):
        large, small = samples[f"{name}, {crowds[-1]}"], samples[f"{name}, 100"]
        case = f"{name}: from 100 to {crowds[-1]:,} tasks"
        section.rows.append(Row(case, summarize(large), "itself at 100", summarize(small), compare(large, small), most))
    section.series = {
        name: [(tasks, summarize(samples[f"{name}, {tasks}"]).median) for tasks in crowds]
        for name in ("pool", *PRIMITIVES)
    }
    section.notes.append(f'"flat" has no figure in the budgets; here it is taken as {FLAT:.2f}x.')
    return section


def measure_options(effort: Effort) -> Section:
    """Compare the pool with itself: other ways to lend, and options switched on."""
    section = Section("options", "Other ways to lend, and options, against the plain checkout")
    with open_process("nimble", "primitives") as process:
        section.versions = process.versions
        for tasks in (1, 100):
            names = ("pool", *(("checkout_nowait",) if tasks == 1 else ()), ALONE, TURNSTILE, *OPTIONS)
            leases = effort.leases(tasks, LEASES // 2)
            samples = interleave(
                {name: process.sampler(name, tasks=tasks, leases=leases) for name in names}, effort.rounds
            )
            plain = samples["pool"]
            section.rows += [
                Row(
                    f"{name}, {_crowd(tasks)}",
                    summarize(samples[name]),
                    "plain checkout",
                    summarize(plain),
                    compare(samples[name], plain),
                )
                for name in names[1:]
            ]
    return section


def _crowd(tasks: int) -> str:
    return "1 task" if tasks == 1 else f"{tasks:,} tasks"
