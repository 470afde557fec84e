"""A client, which does one operation after the other."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING

import trio

from . import accidents, loans, owner
from .checks import check_open

if TYPE_CHECKING:
    from .scene import Operation, Scene

CHECK_EVERY = 500
"""Operations between two looks at the books."""
WEIGHTS: dict[Operation, float] = {
    loans.lend: 60,
    loans.lend_now: 8,
    loans.run: 5,
    loans.lend_two: 1,
    loans.lend_many: 0.3,
    loans.acquire: 8,
    loans.hand_over: 2,
    loans.lose: 0.7,
    loans.forget: 0.7,
    owner.resize: 0.7,
    owner.refresh: 0.3,
    owner.pause: 0.3,
    owner.broadcast: 0.7,
    owner.recount: 1,
    owner.await_readiness: 0.7,
    owner.look: 2,
    accidents.kill: 2,
    accidents.cancel: 4,
}
OPERATIONS = list(WEIGHTS)
CUMULATED = list(accumulate(WEIGHTS.values()))


async def be_client(scene: Scene, number: int) -> None:
    """Do operations as long as some are left; now and then, lose patience with one."""
    rng = scene.rng
    while scene.left > 0:
        scene.left -= 1
        scene.done += 1
        if scene.done % CHECK_EVERY == 0:
            check_open(scene)
        (operation,) = rng.choices(OPERATIONS, cum_weights=CUMULATED)
        deadline = trio.current_time() + rng.expovariate(1.0) if rng.random() < 0.1 else math.inf  # noqa: PLR2004
        with trio.CancelScope(deadline=deadline) as scene.scopes[number]:
            await scene.attempt(operation)
        await trio.sleep(rng.choice([0.0, rng.expovariate(20.0)]))
