"""A round: the life of one pool."""

from __future__ import annotations

import trio

from nimblepool import open_pool
from nimblepool._pool import engine_of

from .checks import check_capacity, check_closed
from .client import be_client
from .owner import look_after
from .promise import require
from .scene import PATIENCE, Scene


class Round:
    """Clients come, all comes to rest, and the pool closes."""

    def __init__(self, seed: str, operations: int) -> None:
        self.scene = Scene(seed, operations)
        self.wrong: BaseException | None = None

    async def play(self) -> None:
        """Run the round.

        Raises:
            AssertionError: the pool broke a promise.
        """
        scene = self.scene
        with trio.CancelScope() as whole:
            async with trio.open_nursery() as scene.crowd:
                with trio.CancelScope() as scope:
                    async with open_pool(scene.worker, **scene.options) as scene.pool:
                        # The pool's jitter must come again with the seed, too.
                        engine_of(scene.pool).state.supply._rng.seed(scene.rng.random())  # noqa: SLF001
                        await self.use_up(whole, scope)
        require(not whole.cancelled_caught, f"somebody waits for ever: {scene.pool.stats}")
        check_closed(scene)

    async def use_up(self, whole: trio.CancelScope, scope: trio.CancelScope) -> None:
        """Do all that is done with an open pool; ``scope`` is around it, ``whole`` around everything."""
        try:
            await self.bustle()
            whole.deadline = trio.current_time() + PATIENCE
            await check_capacity(self.scene)
            await self.end(scope)
        except (AssertionError, BaseExceptionGroup) as error:
            self.wrong = error  # the pool closes next, and if it is broken that may never end
            raise

    async def bustle(self) -> None:
        """Let clients loose on the pool, and wait until the operations are used up."""
        scene = self.scene
        async with trio.open_nursery() as owners:
            owners.start_soon(look_after, scene)
            async with trio.open_nursery() as clients:
                for number in range(scene.rng.choice([1, 4, 12, 40])):
                    clients.start_soon(be_client, scene, number)
            owners.cancel_scope.cancel()

    async def end(self, scope: trio.CancelScope) -> None:
        """Close the pool, in one way or another, on clients that are at work."""
        scene = self.scene
        scene.worker.is_calm = False
        scene.left = 200
        for number in range(scene.rng.choice([0, 5, 20])):
            scene.crowd.start_soon(be_client, scene, number)
        await trio.sleep(scene.rng.expovariate(1.0))
        match scene.rng.choice(["leave", "close", "drain", "cancel"]):
            case "close":
                await scene.pool.close()
            case "drain":
                with trio.move_on_after(30.0):
                    await scene.pool.drain()
            case "cancel":
                scope.deadline = trio.current_time() + scene.rng.choice([0.0, 0.1, 1.0])
            case _:
                pass
