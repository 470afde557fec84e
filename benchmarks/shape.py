"""Cost against size: waiters, resources, keys. What grows with none of them is drawn as a flat line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .measure import LEAST_ROUNDS, compare, interleave, summarize
from .process import open_process
from .section import Row, Section

if TYPE_CHECKING:
    from collections.abc import Callable

    from .process import Process
    from .section import Effort

WAITERS: tuple[int, ...] = (10, 100, 1_000, 10_000, 100_000)
SIZES: tuple[int, ...] = (1, 10, 100, 1_000, 10_000)
RESOURCES = 10
LEASES = 20_000
ROUNDS = LEAST_ROUNDS
"""100,000 tasks take long to start, so there are no more rounds than there must be."""

WAITING, IDLE, BUSY, KEY, KEYS = "waiters", "idle resources", "leased resources", "keys, one in use", "keys in turn"
OURS = {
    WAITING: "patient pool",
    IDLE: "patient pool",
    BUSY: "patient pool",
    KEY: "one of the keys",
    KEYS: "all keys in turn",
}
THEIRS = {
    WAITING: "trio.Semaphore",
    IDLE: "trio.Semaphore",
    BUSY: "trio.Semaphore",
    KEY: "one of the semaphores",
    KEYS: "all semaphores in turn",
}


def measure_shape(effort: Effort) -> Section:
    """Measure one lease at each size, and the ratio of the largest to the smallest."""
    section = Section("shape", "Cost of one lease against size")
    with open_process("nimble", "primitives") as process:
        section.versions = process.versions
        for axis in OURS:
            _measure_axis(section, process, effort, axis)
    section.notes.append("waiters: on 10 resources. leased resources: as many clients wait as are served.")
    section.notes.append("idle resources and keys: one task.")
    section.notes.append("keys in turn: each lease meets memory not touched for long, which is what it costs more.")
    return section


def _measure_axis(section: Section, process: Process, effort: Effort, axis: str) -> None:
    sizes = WAITERS if axis == WAITING else SIZES
    sizes = sizes if effort.full else sizes[:-1]
    samples = interleave(
        {
            f"{who}, {size}": _sampler(process, effort, axis, size, who=who)
            for size in sizes
            for who in (OURS[axis], THEIRS[axis])
        },
        ROUNDS,
    )
    ours, theirs = ([samples[f"{who[axis]}, {size}"] for size in sizes] for who in (OURS, THEIRS))
    for size, our, their in zip(sizes, ours, theirs, strict=True):
        case = f"{size:,} {axis}"
        section.rows.append(Row(case, summarize(our), THEIRS[axis], summarize(their), compare(our, their)))
    for who, sides in (("pool", ours), (THEIRS[axis], theirs)):
        case = f"{who}: {sizes[-1]:,} {axis}"
        first, last = sides[0], sides[-1]
        section.rows.append(Row(case, summarize(last), f"itself at {sizes[0]}", summarize(first), compare(last, first)))
        section.series[f"{axis}: {who}"] = [
            (size, summarize(side).median) for size, side in zip(sizes, sides, strict=True)
        ]


def _sampler(process: Process, effort: Effort, axis: str, size: int, *, who: str) -> Callable[[], float]:
    if axis == WAITING:
        tasks, resources = size + RESOURCES, RESOURCES
    elif axis == BUSY:
        tasks, resources = 2 * size, size
    else:
        tasks, resources = 1, size
    return process.sampler(who, size=resources, tasks=tasks, leases=effort.leases(tasks, LEASES, least=3))
