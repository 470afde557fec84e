"""The books of the pool that the worker served."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from nimblepool._audit import audit
from nimblepool._pool import engine_of

if TYPE_CHECKING:
    from nimblepool._pool import Pool

R = TypeVar("R")


def check_books(pool: Pool[R]) -> None:
    """Assert that the pool, whatever the worker did, has lost nothing."""
    assert pool.stats.balanced, f"the books do not balance: {pool.stats}"
    audit(engine_of(pool).state, engine_of(pool).now())
