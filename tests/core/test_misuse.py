"""What a mistake is answered with."""

from __future__ import annotations

from typing import cast

import pytest

from nimblepool import Lease, LeaseExpired, PoolWorker, open_pool
from nimblepool.testing import FakeResource, FakeWorker


async def test_a_checkout_that_was_not_entered() -> None:
    async with open_pool(FakeWorker()) as pool:
        checkout = pool.checkout()
        for use in (lambda: checkout.resource, lambda: checkout.age, lambda: checkout.held_for, checkout.remove):
            with pytest.raises(LeaseExpired, match="not entered: use `async with pool"):
                use()
        checkout.release()
        async with checkout:
            pass
        with pytest.raises(LeaseExpired, match="has ended; check out another"):
            _ = checkout.resource


async def test_a_lease_that_was_acquired_is_no_block() -> None:
    async with open_pool(FakeWorker()) as pool:
        leases: list[Lease[FakeResource]] = []

        async def acquire() -> Lease[FakeResource]:
            leases.append(await pool.acquire())
            return leases[-1]

        with pytest.raises(RuntimeError, match=r"entered only once \(and `acquire` has done it\)"):
            async with await acquire():
                pass
        assert leases[0].is_held
        leases[0].release()


async def test_a_worker_that_is_a_class() -> None:
    with pytest.raises(TypeError, match="worker must be PoolWorker, not <class"):
        async with open_pool(cast("PoolWorker[FakeResource]", FakeWorker)):
            pass
