"""What the owner of a pool does."""

from __future__ import annotations

import gc
from itertools import count
from typing import TYPE_CHECKING

import trio

from .promise import require
from .scene import PATIENCE

if TYPE_CHECKING:
    from .scene import Scene


async def look_after(scene: Scene) -> None:
    """Do what an owner must do now and then, or clients without a timeout wait for ever with good reason."""
    done = -1
    for turn in count():
        if turn % (PATIENCE // 5.0) == 0:
            require(scene.done > done, f"clients wait for ever: {scene.pool.stats}")
            done = scene.done
        if turn % 20 == 0:
            gc.collect()
        await trio.sleep(5.0)
        if scene.worker.is_shared:
            scene.worker.capacity_now = scene.rng.randint(1, 4)
        scene.pool.refresh_capacity()


async def resize(scene: Scene) -> None:
    """Change the limits."""
    max_size = scene.rng.randint(1, 10)
    scene.largest = max(scene.largest, max_size)
    scene.pool.resize(min_size=scene.rng.randint(0, max_size), max_size=max_size)


async def refresh(scene: Scene) -> None:
    """Retire all that is open."""
    scene.pool.refresh(scene.rng.choice([0.0, 1.0, 5.0]))


async def pause(scene: Scene) -> None:
    """Pause for a while."""
    scene.pool.pause()
    try:
        await trio.sleep(scene.rng.expovariate(2.0))
    finally:
        scene.pool.resume()


async def broadcast(scene: Scene) -> None:
    """Tell every idle resource something."""
    scene.pool.broadcast("news")


async def recount(scene: Scene) -> None:
    """Change the capacity of every resource."""
    if scene.worker.is_shared:
        scene.worker.capacity_now = scene.rng.randint(0, 4)
    scene.pool.refresh_capacity()


async def await_readiness(scene: Scene) -> None:
    """Wait until some are open, not for ever."""
    number = scene.rng.randint(1, scene.pool.stats.max_size)
    try:
        with trio.move_on_after(2.0):
            await scene.pool.wait_ready(number)
    except ValueError:
        require(number > scene.pool.stats.max_size, f"{number} can be ready, but wait_ready says that they cannot")


async def look(scene: Scene) -> None:
    """Read the figures."""
    stats = scene.pool.stats
    require(stats.balanced, f"the books do not balance: {stats}")
    require(repr(scene.pool), "a pool has a repr")
