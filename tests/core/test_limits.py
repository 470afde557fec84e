"""The limits of time and the stopping of a pool, where two of them meet."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from nimblepool import PoolClosed, Reason, Verdict, open_pool
from nimblepool.testing import FakeResource, FakeWorker, Slow, check_balance


async def test_what_is_idle_after_a_reset_is_closed_in_time() -> None:
    """It is idle since its lease ended, before others that were returned meanwhile."""
    worker = FakeWorker()
    worker.always("reset", Slow(1))
    async with open_pool(worker, max_size=2, max_idle=3) as pool:
        first, second = await pool.acquire(), await pool.acquire()
        resource = first.resource
        await trio.sleep(10)
        worker.script("checkin", Verdict.RESET)
        first.release()
        await trio.sleep(0.5)
        second.release()
        await trio.sleep(1)
        check_balance(pool)
        await trio.sleep(1.6)
        check_balance(pool)
        assert resource.terminated == [Reason.IDLE]
        assert pool.stats.idle == 1


async def test_draining_a_paused_pool_serves_who_waits_and_ends() -> None:
    async with open_pool(FakeWorker(), max_size=1) as pool, trio.open_nursery() as nursery:
        pool.pause()
        for _ in range(3):
            nursery.start_soon(partial(pool.run, FakeResource.use, 1))
        await wait_all_tasks_blocked()
        with trio.fail_after(4):
            await pool.drain()
        assert pool.stats.waited == 3
        with pytest.raises(PoolClosed):
            await pool.run(FakeResource.use)


async def test_a_group_that_a_body_ends_in_after_max_hold_says_so() -> None:
    failure = ValueError("in the clean-up")

    async def clean_up_badly() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise failure

    async with open_pool(FakeWorker(), max_hold=1) as pool:
        with pytest.raises(ExceptionGroup) as caught:
            async with pool.checkout(), trio.open_nursery() as nursery:
                nursery.start_soon(clean_up_badly)
                await trio.sleep_forever()
        assert caught.value.exceptions == (failure,)
        assert "max_hold (1 s)" in "".join(caught.value.__notes__)
