"""Time one contender once, in the process in which this runs.

A lap is timed by two clocks. For a contender it is the process's CPU time that counts. Nothing in it waits for the
world outside, so on a machine at rest CPU time and wall time are one, and on a busy one CPU time leaves out what others
did meanwhile. For the clients of a server, in `load`, it is wall time.

Garbage is collected before, and what the set-up made is frozen: the collector stays on, and judges only what the loop
itself makes.
"""

from __future__ import annotations

import asyncio
import gc
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Self

import trio
import trio.testing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .contender import Client, Contender, Opener

GC_STATE = "on; collected before each sample, what the set-up made is frozen"


@dataclass(frozen=True)
class Time:
    """A moment, or the time between two; in seconds."""

    cpu: float
    wall: float

    @classmethod
    def now(cls) -> Self:
        """Look at both clocks."""
        return cls(process_time(), perf_counter())

    def __sub__(self, start: Time) -> Time:
        return Time(self.cpu - start.cpu, self.wall - start.wall)


def time_once(contender: Contender, *, size: int, tasks: int, leases: int) -> float:
    """Return the seconds that ``tasks`` clients need together, each for ``leases`` leases of ``size`` resources."""
    if contender.loop == "trio":
        return trio.run(_time_trio, contender.open, size, tasks, leases)
    return asyncio.run(_time_asyncio(contender.open, size, tasks, leases))


async def _time_trio(opener: Opener, size: int, tasks: int, leases: int) -> float:
    async with opener(size) as client:
        await lap_trio(client, min(tasks, 100), 2)
        return (await lap_trio(client, tasks, leases)).cpu


async def _time_asyncio(opener: Opener, size: int, tasks: int, leases: int) -> float:
    async with opener(size) as client:
        await lap_asyncio(client, min(tasks, 100), 2)
        return (await lap_asyncio(client, tasks, leases)).cpu


async def lap_trio(client: Client, tasks: int, leases: int) -> Time:
    """Time from the moment at which all tasks stand at the gate until the last has done its work.

    Starting and ending the tasks is not timed.
    """
    finish = Finish(tasks)
    gate, done = trio.Event(), trio.Event()

    async def run() -> None:
        await gate.wait()
        await client(leases)
        if finish.reach():
            done.set()
        await done.wait()

    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(run)
        await trio.testing.wait_all_tasks_blocked()
        with frozen_garbage():
            start = Time.now()
            gate.set()
            await done.wait()
    return finish.time - start


async def lap_asyncio(client: Client, tasks: int, leases: int) -> Time:
    """Do the same on asyncio."""
    finish = Finish(tasks)
    gate, done = asyncio.Event(), asyncio.Event()

    async def run() -> None:
        await gate.wait()
        await client(leases)
        if finish.reach():
            done.set()
        await done.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(run())
        await asyncio.sleep(0)  # all tasks were scheduled before this one comes again
        with frozen_garbage():
            start = Time.now()
            gate.set()
            await done.wait()
    return finish.time - start


class Finish:
    """Where the clients arrive, and when the last one did."""

    def __init__(self, clients: int) -> None:
        self.missing = clients
        self.time = Time(0.0, 0.0)

    def reach(self) -> bool:
        """Count one that arrives; true for the last."""
        self.missing -= 1
        if self.missing:
            return False
        self.time = Time.now()
        return True


@contextmanager
def frozen_garbage() -> Iterator[None]:
    """Collect what is garbage and keep the collector away from the rest, for the block."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
