"""The ways in which clients borrow."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from .lease import use, use_bare
from .promise import require

if TYPE_CHECKING:
    from nimblepool import Lease
    from nimblepool.testing import FakeResource

    from .scene import Scene


def checkout(scene: Scene) -> Lease[FakeResource]:
    """Make a checkout, with or without a timeout of its own."""
    request = scene.rng.random()
    if scene.rng.random() < 0.7:  # noqa: PLR2004
        return scene.pool.checkout(request)
    return scene.pool.checkout(request, timeout=scene.rng.choice([0, 0.1, 1.0, 20.0, None]))


async def lend(scene: Scene) -> None:
    """Check out, in every way there is."""
    async with checkout(scene) as lease:
        await use(scene, lease)


async def lend_now(scene: Scene) -> None:
    """Check out without waiting."""
    with scene.pool.checkout_nowait(scene.rng.random()) as lease:
        await use(scene, lease)


async def run(scene: Scene) -> None:
    """Let the pool call a function."""
    await scene.pool.run(partial(use_bare, scene))


async def lend_two(scene: Scene) -> None:
    """Check out in the block of a checkout, which can deadlock with others until the inner one times out."""
    async with checkout(scene) as outer, scene.pool.checkout(timeout=scene.rng.uniform(0.0, 1.0)) as inner:
        if not scene.worker.is_shared and outer.is_held:
            require(inner.resource is not outer.resource, "one resource was lent twice to one client")
        await use(scene, inner)


async def lend_many(scene: Scene) -> None:
    """Come as a crowd, and go all at the same time."""
    with trio.move_on_after(scene.rng.expovariate(1.0)):
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(scene.attempt, lend)


async def acquire(scene: Scene) -> None:
    """Acquire and release."""
    lease = await scene.pool.acquire()
    try:
        await use(scene, lease)
    finally:
        lease.release()
        lease.release()


async def hand_over(scene: Scene) -> None:
    """Acquire a lease, and have another task use and release it."""
    lease = await scene.pool.acquire(owner=None)

    async def finish(scene: Scene) -> None:
        try:
            await use(scene, lease)
        finally:
            lease.release()

    scene.crowd.start_soon(scene.attempt, finish)


async def lose(scene: Scene) -> None:
    """Acquire a lease and lose it: the collector notices."""
    await scene.pool.acquire(owner=None)


async def forget(scene: Scene) -> None:
    """Acquire a lease in a task that ends without releasing it: the pool notices."""
    kept: list[Lease[FakeResource]] = []

    async def acquire(scene: Scene) -> None:
        kept.append(await scene.pool.acquire())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.attempt, acquire)
    await trio.sleep(scene.rng.choice([0.0, 1.0]))
    for lease in kept:
        lease.release()
