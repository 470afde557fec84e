"""The worker of a round."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import trio

from nimblepool import Reason
from nimblepool.testing import FakeResource, FakeWorker

from .faults import MISTAKES, RATES

if TYPE_CHECKING:
    import random


class FaultyWorker(FakeWorker):
    """A fake whose callbacks go wrong at random, each at a rate of its own."""

    def __init__(self, rng: random.Random, *, capacity: int | None, watched: bool) -> None:
        super().__init__(capacity=capacity, watched=watched)
        self.is_shared = capacity is not None
        self.is_calm = False
        self.faults: Counter[str] = Counter()
        self.widest: dict[FakeResource, int] = {}
        """The largest capacity that each resource has had."""
        self._rng = rng
        self._rates = {callback: rng.choice(RATES) for callback in MISTAKES}

    async def init(self) -> FakeResource:
        """Open as the script says; now and then too late to be cancelled."""
        if not self.is_calm and self._rng.random() < self._rates["init"] / 4:
            with trio.CancelScope(shield=True):
                await trio.sleep(self._rng.uniform(0.0, 3.0))
        return await super().init()

    def capacity(self, resource: FakeResource) -> int:
        """Answer, and remember the answer."""
        capacity = super().capacity(resource)
        if isinstance(capacity, int):
            self.widest[resource] = max(capacity, self.widest.get(resource, 0))
        return capacity

    def replace(self, resource: FakeResource) -> FakeResource:
        """Close ``resource`` as its client does, and return another one."""
        resource.terminated.append(Reason.REMOVED)
        another = FakeResource(len(self.resources) + 1)
        self.resources.append(another)
        return another

    def most_leases(self, resource: FakeResource) -> int:
        """Return how many leases ``resource`` may ever have had at a time."""
        return self.widest.get(resource, 0) if self.is_shared else 1

    def _next(self, callback: str, subject: object) -> object:  # noqa: ARG002 - as in FakeWorker
        # In place of FakeWorker's scripts, which would have to be written ahead, and cannot be torn up for the calm.
        if self.is_calm or self._rng.random() >= self._rates.get(callback, 0.0):
            return None
        self.faults[callback] += 1
        return MISTAKES[callback](self._rng)


def draw_worker(rng: random.Random) -> FaultyWorker:
    """Draw a worker: of shared resources or not, watched or not."""
    shared = rng.random() < 0.4  # noqa: PLR2004
    capacity = rng.randint(1, 4) if shared else None
    return FaultyWorker(rng, capacity=capacity, watched=rng.random() < 0.4)  # noqa: PLR2004
