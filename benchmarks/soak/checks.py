"""What must hold: of a pool at work, of one at rest, and of one that is closed."""

from __future__ import annotations

import gc
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import trio

from nimblepool.testing import check_balance

from .promise import require

if TYPE_CHECKING:
    from nimblepool.testing import FakeResource

    from .scene import Scene

REST = 120.0
"""Virtual seconds after which all that was slow or hung has ended, and every back-off has run out."""


def check_open(scene: Scene) -> None:
    """Raise unless the books of the pool at work are in order."""
    check_balance(scene.pool)
    stats = scene.pool.stats
    size = stats.size + stats.closing if scene.settings.strict_size else stats.size
    require(size <= scene.largest, f"{size} resources, and never more than {scene.largest} were allowed")


async def check_capacity(scene: Scene) -> None:
    """Still the wind, and demand all that the pool may lend at a time."""
    size = scene.rng.randint(1, 8)
    scene.largest = max(scene.largest, size)
    scene.worker.is_calm = True
    scene.worker.capacity_now = each = scene.rng.randint(1, 4) if scene.worker.is_shared else 1
    scene.pool.resize(min_size=0, max_size=size)
    if (most := scene.settings.max_uses) is not None:
        scene.pool.refresh()  # those that are half used up carry less
        each = min(each, most)
    scene.pool.refresh_capacity()
    gc.collect()
    await trio.sleep(REST)
    check_open(scene)
    stats = scene.pool.stats
    require(stats.leases == stats.leased == stats.waiting == 0, f"nobody is left, but the books say {stats}")
    await fill(scene, size, each)


async def fill(scene: Scene, size: int, each: int) -> None:
    """Take ``each`` leases on ``size`` resources at the same time."""
    async with AsyncExitStack() as stack:
        lent: Counter[FakeResource] = Counter()
        for _ in range(size * each):
            lease = await stack.enter_async_context(scene.pool.checkout(timeout=60.0))
            lent[lease.resource] += 1
        require(len(lent) == size, f"{size} resources were to be lent, but {len(lent)} were")
        require(set(lent.values()) == {each}, f"{each} leases were to be on each, but {list(lent.values())} were")
        check_open(scene)


def check_closed(scene: Scene) -> None:
    """Raise unless nothing is left of the pool."""
    check_balance(scene.pool)
    require(scene.pool.stats.leases == 0, "a closed pool has leases")
    for opened in scene.worker.resources:
        require(len(opened.terminated) == 1, f"{opened} was terminated for {opened.terminated}, not once")
    if scene.settings.observers:
        scene.witness.testify(scene.pool.stats)
