"""Keyed pools under random loads: the budget holds, nobody starves, and no room is lost."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import trio

from nimblepool import KeyedPool, PoolError, open_keyed_pool
from nimblepool._pool import engine_of
from nimblepool._quota import Budget, Quota, Share
from nimblepool.testing import Fail, FakeResource, FakeWorker, Slow, check_balance

KEYS = "abcdef"

CASES: list[dict[str, Any]] = [
    {"max_total": 1, "max_size": 3},
    {"max_total": 3, "max_size": 2},
    {"max_total": 4, "max_size": 4, "strict_size": True},
    {"max_total": 4, "max_size": 4, "key_idle": 2.0},
    {"max_total": 5, "max_size": 3, "max_idle": 1.0, "ping_after": 0.5},
    {"max_total": 4, "max_size": 2, "min_size": 1, "key_idle": 3.0},
    {"max_total": 9, "max_size": 9},
]


class Load:
    """Random clients of one keyed pool, and what must hold of it."""

    def __init__(self, seed: int, keyed: KeyedPool[str, FakeResource], max_total: int) -> None:
        self.rng = random.Random(seed)
        self.keyed = keyed
        self.max_total = max_total
        self.served = 0

    async def client(self, key: str) -> None:
        for _ in range(self.rng.randint(1, 5)):
            await trio.sleep(self.rng.choice([0, 0, 0.3, 3]))
            patience = self.rng.choice([math.inf, math.inf, self.rng.uniform(0, 3)])
            with trio.move_on_after(patience):
                try:
                    async with self.keyed.checkout(key, timeout=self.rng.choice([None, None, 2])) as lease:
                        self.check()
                        await lease.resource.use(self.rng.choice([0, 0.1, 1]))
                        self.served += 1
                        if self.rng.random() < 0.1:
                            lease.remove()
                except PoolError:
                    pass
            self.check()

    def check(self) -> None:
        budget = self.keyed._budget
        assert isinstance(budget, Budget)
        engines = [entry.engine for entry in self.keyed._entries.values()]
        sizes = sum(engine.state.fleet.size for engine in [*engines, *self.keyed._leaving])
        assert budget.used == sizes <= self.max_total
        if budget.used < self.max_total:
            hungry = budget.neediest()
            assert hungry is None or not hungry.pool.state.sizing.would_open(trio.current_time())
        self.check_openers(budget, [engine.quota for engine in [*engines, *self.keyed._leaving]])

    def check_openers(self, budget: Budget, shares: list[Quota]) -> None:
        opening = [share for share in shares if isinstance(share, Share) and share.is_opening]
        largest = budget._openers.largest()
        assert (largest and largest.lasting) == max((share.lasting for share in opening), default=None)
        hungry = budget.neediest_with_clients()
        if largest and hungry and not budget.making_room and self.would_open(hungry):
            assert largest.lasting - hungry.size < 2 or not largest.can_spare

    def would_open(self, share: Share) -> bool:
        now = trio.current_time()
        return share.pool.state.sizing.would_open(now) and share.pool.state.alarm > now  # else its keeper is about to


def random_worker(rng: random.Random) -> FakeWorker:
    worker = FakeWorker()
    steps = [None, None, Slow(0.2), Slow(1), Fail(OSError("refused"))]
    worker.script("init", *rng.choices(steps, k=20))
    worker.script("terminate", *rng.choices([None, Slow(0.3)], k=20))
    worker.script("ping", *rng.choices([None, None, Fail(OSError("dead"))], k=20))
    return worker


@pytest.mark.parametrize("options", CASES, ids=str)
@pytest.mark.parametrize("seed", range(25))
async def test_the_budget_holds_and_everybody_is_served_in_the_end(seed: int, options: dict[str, Any]) -> None:
    rng = random.Random(seed)
    workers: list[FakeWorker] = []

    def make_worker(_: str) -> FakeWorker:
        workers.append(random_worker(rng))
        return workers[-1]

    async with open_keyed_pool(make_worker, on_open_failure="wait", **options) as keyed:
        load = Load(seed, keyed, options["max_total"])
        with trio.fail_after(10_000):
            async with trio.open_nursery() as nursery:
                for _ in range(40):
                    nursery.start_soon(load.client, rng.choice(KEYS))
        assert load.served
        for key in list(keyed.stats):
            check_balance(keyed.pool_of(key))
        async with keyed.checkout("new", timeout=None):  # room is left, or made
            load.check()
        assert engine_of(keyed.pool_of("new")).state.books.waited == 1
    assert not any(worker.open_now for worker in workers)
