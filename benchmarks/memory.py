"""Memory: what a resource, a waiter and a lease take, and whether a million leases leave anything behind.

`tracemalloc` counts what Python allocates, exactly; the figures do not depend on the machine's speed, and there are no
rounds. What a task costs by itself is measured with tasks that sleep, and subtracted.
"""

from __future__ import annotations

import gc
import tracemalloc
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import trio
import trio.testing

from nimblepool import PoolWorker, open_pool

from .measure import Figure
from .section import Row, Section

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from nimblepool import Pool

    from .section import Effort

T = TypeVar("T")

MANY = 10_000
IDLE_BUDGET = 400
GROWTH_BUDGET = 1.0
"""Bytes a lease. The design says "no growth"; whatever is kept for each lease takes 16 bytes or more, while
trio and the interpreter breathe by a few thousand bytes in all."""


class BareWorker(PoolWorker[object]):
    """Lends objects that exist already, so that opening them takes no memory of their own."""

    def __init__(self, count: int) -> None:
        self.resources = [object() for _ in range(count)]

    async def init(self) -> object:
        """Take one of them."""
        return self.resources.pop()


def measure_memory(effort: Effort) -> Section:
    """Measure all four."""
    leases = 1_000_000 if effort.full else 50_000
    section = Section("memory", "Memory, by tracemalloc")
    with tracing():
        idle = trio.run(measure_idle)
        asleep = trio.run(measure_tasks, _sleep, 1)
        waiting = trio.run(measure_tasks, _wait, 1) - asleep
        leased = trio.run(measure_tasks, _wait, MANY) - asleep
        queued = trio.run(measure_queued) - asleep
        growth = trio.run(measure_growth, leases)
    section.rows = [
        _row("an idle resource, beyond the resource", idle, most=IDLE_BUDGET),
        _row("a waiter, beyond its task", waiting, "trio.Semaphore", queued),
        _row("a lease, beyond its task", leased),
        _row(f"left behind by {leases:,} leases, for each", growth / leases, most=GROWTH_BUDGET),
    ]
    section.notes.append(
        f'"no growth" has no figure in the budgets; here it is taken as less than {GROWTH_BUDGET:g} byte a lease.'
    )
    section.notes.append(f"left behind in all: {growth:,.0f} bytes")
    return section


async def measure_idle() -> float:
    """Return the bytes for each of many idle resources.

    They are opened ten at a time: trio's tables of tasks never shrink, and would be counted if all opened at once.
    """
    async with open_pool(BareWorker(MANY), max_size=MANY, max_opening=10) as pool:
        before = traced()
        await pool.wait_ready(MANY)
        await trio.testing.wait_all_tasks_blocked()
        return (traced() - before) / MANY


async def _sleep(_pool: Pool[object]) -> None:
    await trio.sleep_forever()


async def _wait(pool: Pool[object]) -> None:
    async with pool.checkout():
        await trio.sleep_forever()


async def measure_tasks(client: Callable[[Pool[object]], Awaitable[None]], size: int) -> float:
    """Return the bytes for each of many tasks that run ``client`` with a pool of ``size``."""
    async with open_pool(BareWorker(size), max_size=size, checkout_timeout=3_600.0) as pool:
        await pool.wait_ready(size)
        await trio.testing.wait_all_tasks_blocked()
        return await _measure_crowd(client, pool)


async def measure_queued() -> float:
    """Return the bytes for each of many tasks that wait for a semaphore."""
    return await _measure_crowd(trio.Semaphore.acquire, trio.Semaphore(0))


async def _measure_crowd(client: Callable[[T], Awaitable[None]], argument: T) -> float:
    async with trio.open_nursery() as nursery:
        before = traced()
        for _ in range(MANY):
            nursery.start_soon(client, argument)
        await trio.testing.wait_all_tasks_blocked()
        after = traced()
        nursery.cancel_scope.cancel()
    return (after - before) / MANY


async def measure_growth(leases: int) -> float:
    """Return the bytes that are there after ``leases`` leases by 100 tasks on 10 and were not before."""
    async with open_pool(BareWorker(10), max_size=10) as pool:
        await pool.wait_ready(10)
        await _lease(pool, leases // 10)
        before = traced()
        await _lease(pool, leases)
        return traced() - before


async def _lease(pool: Pool[object], leases: int) -> None:
    async def client() -> None:
        for _ in range(leases // 100):
            async with pool.checkout():
                pass

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(client)


def traced() -> int:
    """Return the bytes that are allocated now, without garbage."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@contextmanager
def tracing() -> Iterator[None]:
    """Let tracemalloc count during the block."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def _exact(value: float) -> Figure:
    return Figure(value, value, value, 1)


def _row(case: str, ours: float, against: str = "", theirs: float | None = None, most: float | None = None) -> Row:
    if theirs is None:
        return Row(case, _exact(ours), most=most, unit="bytes")
    return Row(case, _exact(ours), against, _exact(theirs), _exact(ours / theirs), most, unit="bytes")
