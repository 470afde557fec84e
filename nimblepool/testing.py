"""What the author of a worker or an adapter needs for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._audit import audit
from ._conformance import check_worker
from ._fake import Fail, FakeResource, FakeWorker, Hang, Slow
from ._keyed import KeyedPool
from ._pool import engine_of
from ._sweep import sweep

if TYPE_CHECKING:
    from ._engine import Engine
    from ._keyed import K
    from ._pool import Pool
    from ._worker import R

__all__ = ["Fail", "FakeResource", "FakeWorker", "Hang", "Slow", "check_balance", "check_worker", "sweep"]


def check_balance(pool: Pool[R] | KeyedPool[K, R]) -> None:
    """Assert that the pool's books balance and that it has leaked nothing.

    May be called at any time, also after the pool was closed: then nothing may be left open or leased.

    Args:
        pool: a pool, or a keyed pool, each of whose pools is checked.

    Raises:
        AssertionError: naming what does not fit.
    """
    for each in pool.pools() if isinstance(pool, KeyedPool) else [pool]:
        _check_one(engine_of(each))


def _check_one(engine: Engine[R]) -> None:
    stats = engine.stats()
    assert stats.balanced, f"the books do not balance: {stats}"
    audit(engine.state, engine.now())
    leases = sum(slot.leases for slot in engine.state.fleet.slots)
    assert leases == len(engine.held), f"{leases} leases are on the slots, but {len(engine.held)} are held"
    if engine.closed.is_set():
        assert stats.opened == stats.closed, f"{stats.opened} resources were opened, but {stats.closed} closed"
        assert not stats.size, f"{stats.size} resources are left in a closed pool"
        assert not stats.waiting, f"{stats.waiting} clients wait for a closed pool"
