"""One transaction from BEGIN to COMMIT or ROLLBACK."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from nimblepool import Lease

    from ._resource import DatabaseResource


@asynccontextmanager
async def transaction_on(lease: Lease[DatabaseResource]) -> AsyncGenerator[None, None]:
    """Run the block in a transaction of the leased connection: commit at its end, roll back on any exception at all.

    A block that got to its end is committed even under a pending cancellation; then the cancellation comes out at the
    next checkpoint, not here, so that whoever sees `trio.Cancelled` come out knows that nothing was committed.
    """
    resource = lease.resource
    await resource.begin()
    try:
        yield
        # Asked again: a lease that the pool has ended meanwhile refuses.
        await lease.resource.commit()
    except BaseException:
        await resource.rollback()
        raise
