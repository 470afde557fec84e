"""What observers and callbacks see of the figures, and what observers do not change about a lease."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from nimblepool import PoolObserver, PoolStats, Verdict, open_pool
from nimblepool.testing import FakeResource, FakeWorker

if TYPE_CHECKING:
    from nimblepool import Lease, Pool


class Reader(PoolObserver):
    """Reads the figures at every event."""

    def __init__(self) -> None:
        self.pool: Pool[FakeResource]
        self.read: list[PoolStats] = []

    def look(self) -> None:
        self.read.append(self.pool.stats)

    def checkout(self, pool: str, wait: float) -> None:
        self.look()

    def checkin(self, pool: str, used: float, error: BaseException | None) -> None:
        self.look()


class ReadingWorker(FakeWorker):
    """Reads them in its callbacks."""

    def __init__(self, reader: Reader) -> None:
        super().__init__(capacity=2)
        self._reader = reader

    def checkout(self, resource: FakeResource, request: object) -> Verdict:
        self._reader.look()
        return super().checkout(resource, request)

    def checkin(self, resource: FakeResource, error: BaseException | None) -> Verdict:
        self._reader.look()
        return super().checkin(resource, error)


async def test_the_figures_balance_at_every_event_and_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reading taken before a lease was fully over did not balance, and was repeated 100 times."""
    readings = 0

    def counting(**figures: Any) -> PoolStats:  # noqa: ANN401 - whatever a reading consists of
        nonlocal readings
        readings += 1
        return PoolStats(**figures)

    monkeypatch.setattr("nimblepool._stats.PoolStats", counting)
    reader = Reader()
    async with open_pool(ReadingWorker(reader), max_size=1, observers=[reader]) as pool:
        reader.pool = pool
        await pool.wait_ready()
        async with pool.checkout(), trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(partial(pool.run, FakeResource.use, 1))
    assert readings == len(reader.read) >= 4 * 4
    assert all(stats.balanced for stats in reader.read)


@pytest.mark.parametrize("observers", [[], [PoolObserver()]])
async def test_a_lease_may_end_in_another_task_than_it_began(observers: list[PoolObserver]) -> None:
    """With observers, each lease had a cancel scope, which must be left where it was entered."""
    async with open_pool(FakeWorker(), observers=observers) as pool:
        leases: list[Lease[FakeResource]] = []

        async def begin(*, task_status: trio.TaskStatus[AsyncExitStack]) -> None:
            async with AsyncExitStack() as stack:
                leases.extend([await stack.enter_async_context(pool.checkout()) for _ in range(2)])
                task_status.started(stack.pop_all())

        async with trio.open_nursery() as nursery:
            kept = await nursery.start(begin)
        assert pool.stats.leases == 2
        await kept.aclose()
        assert [lease.is_held for lease in leases] == [False, False]
        assert pool.stats.idle == 2


@pytest.mark.parametrize("observers", [[], [PoolObserver()]])
async def test_leases_may_end_in_any_order(observers: list[PoolObserver]) -> None:
    async with open_pool(FakeWorker(), observers=observers) as pool:
        first, second = pool.checkout(), pool.checkout()
        await first.__aenter__()
        await second.__aenter__()
        await first.__aexit__(None, None, None)
        await second.__aexit__(None, None, None)
        assert pool.stats.idle == 2
