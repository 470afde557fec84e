"""The scene of a round: what its clients and its owner share."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

import trio

from nimblepool import PoolClosed, PoolError
from nimblepool._options import Settings

from .faults import Fault
from .options import draw_options
from .witness import Witness
from .worker import draw_worker

if TYPE_CHECKING:
    from nimblepool import Pool
    from nimblepool.testing import FakeResource

Operation: TypeAlias = Callable[["Scene"], Awaitable[object]]

PATIENCE = 1000.0
"""Virtual seconds without any progress after which a round is stuck."""


class Scene:
    """One pool, and what is known about it."""

    pool: Pool[FakeResource]
    crowd: trio.Nursery
    """For clients that go on when the one that brought them has gone."""

    def __init__(self, seed: str, operations: int) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - no secret
        self.worker = draw_worker(self.rng)
        self.witness = Witness(self.rng)
        self.options = draw_options(self.rng, self.witness)
        self.settings = Settings(**self.options)
        self.largest = self.settings.max_size
        self.left = operations
        self.done = 0
        self.outcomes: Counter[str] = Counter()
        self.leases: Counter[FakeResource] = Counter()
        self.scopes: dict[int, trio.CancelScope] = {}

    async def attempt(self, operation: Operation) -> None:
        """Do ``operation``, and count what became of it.

        Raises:
            BaseException: whatever clients do not have to expect, and ``trio.Cancelled``.
        """
        name = operation.__name__
        try:
            await operation(self)
        except trio.Cancelled:
            self.outcomes[f"{name}: Cancelled"] += 1
            raise
        except PoolClosed:
            self.left = 0
            self.outcomes[f"{name}: PoolClosed"] += 1
        except (PoolError, Fault) as error:
            self.outcomes[f"{name}: {type(error).__name__}"] += 1
        except TypeError as error:
            if "must return a nimblepool.Verdict" not in str(error):
                raise
            self.outcomes[f"{name}: nonsense"] += 1
        else:
            self.outcomes[name] += 1
