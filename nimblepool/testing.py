"""What the author of a worker or an adapter needs for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._audit import audit
from ._conformance import check_worker
from ._fake import Fail, FakeResource, FakeWorker, Hang, Slow
from ._pool import engine_of
from ._sweep import sweep

if TYPE_CHECKING:
    from ._pool import Pool
    from ._worker import R

__all__ = ["Fail", "FakeResource", "FakeWorker", "Hang", "Slow", "check_balance", "check_worker", "sweep"]


def check_balance(pool: Pool[R]) -> None:
    """Assert that the pool's books balance and that it has leaked nothing.

    May be called at any time, also after the pool was closed: then nothing may be left open or leased.

    Raises:
        AssertionError: naming what does not fit.
    """
    engine = engine_of(pool)
    stats = pool.stats
    assert stats.balanced, f"the books do not balance: {stats}"
    audit(engine.state, engine.now())
    leases = sum(slot.leases for slot in engine.state.fleet.slots)
    assert leases == len(engine.held), f"{leases} leases are on the slots, but {len(engine.held)} are held"
    if engine.closed.is_set():
        assert stats.opened == stats.closed, f"{stats.opened} resources were opened, but {stats.closed} closed"
        assert not stats.size, f"{stats.size} resources are left in a closed pool"
        assert not stats.waiting, f"{stats.waiting} clients wait for a closed pool"
