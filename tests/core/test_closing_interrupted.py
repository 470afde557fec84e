"""Ctrl-C while a pool closes, drains or makes a key's pool: nothing hangs, and nothing is left half done."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock

from nimblepool import CheckoutTimeout, NoneIdle, Pool, PoolClosed, open_keyed_pool, open_pool
from nimblepool._engine import Engine
from nimblepool._fleet import Fleet
from nimblepool.testing import FakeResource, FakeWorker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nimblepool import Reason
    from nimblepool._slot import Slot

CHILD = """
import signal
import sys
import trio
from trio.testing import MockClock
from nimblepool import KeyedPool, open_keyed_pool, open_pool
from nimblepool._engine import Engine
from nimblepool.testing import FakeWorker

class Worker(FakeWorker):
    async def terminate(self, resource, reason):
        await trio.sleep(0.3)
        if not moments:
            press()
        await trio.sleep(0.7)
        await super().terminate(resource, reason)

@trio.lowlevel.enable_ki_protection  # so that it reaches the main task, which waits for the closing
def press():
    signal.raise_signal(signal.SIGINT)

async def leaving():
    async with open_pool(worker) as pool, pool.checkout():
        pass

async def closing():
    async with open_pool(worker) as pool:
        async with pool.checkout():
            pass
        await pool.close()

async def revoking():
    async with open_pool(worker) as pool:
        await pool.acquire(owner=None)
        await pool.close()

async def leaving_keyed():
    async with open_keyed_pool(lambda key: worker) as keyed, keyed.checkout("a"):
        pass

async def closing_keyed():
    async with open_keyed_pool(lambda key: worker) as keyed:
        async with keyed.checkout("a"):
            pass
        await keyed.close()

def press_before(owner, name):
    method = getattr(owner, name)

    def pressed(*args):
        setattr(owner, name, method)
        signal.raise_signal(signal.SIGINT)
        return method(*args)

    setattr(owner, name, pressed)

worker = Worker()
moments = sys.argv[2:]
for moment in moments:
    owner, name = moment.split(".")
    press_before({"Engine": Engine, "KeyedPool": KeyedPool}[owner], name)
try:
    trio.run(globals()[sys.argv[1]], clock=MockClock(autojump_threshold=0))
except KeyboardInterrupt:
    print("opened", len(worker.resources), "open", len(worker.open_now), "stopped", worker.count("stop"))
"""


@pytest.mark.parametrize("way", ["leaving", "closing", "revoking", "leaving_keyed", "closing_keyed"])
def test_an_interrupt_while_the_pool_closes_waits_until_everything_is_closed(way: str) -> None:
    """In a program of its own: what is tested for is that it does not hang."""
    assert_closed_in_spite_of_an_interrupt(way)


@pytest.mark.parametrize(
    ("way", "moment"),
    [
        ("leaving", "Engine.begin_closing"),
        ("leaving", "Engine.start_to_finish"),
        ("closing", "Engine.begin_closing"),
        ("closing", "Engine.start_to_finish"),
        ("leaving_keyed", "KeyedPool._begin_closing"),
    ],
)
def test_an_interrupt_between_two_steps_of_closing_is_held_back(way: str, moment: str) -> None:
    assert_closed_in_spite_of_an_interrupt(way, moment)


def assert_closed_in_spite_of_an_interrupt(*arguments: str) -> None:
    child = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments], check=False, timeout=20, text=True, capture_output=True
    )
    assert (child.stdout, child.stderr) == ("opened 1 open 0 stopped 1\n", "")


def run_interrupted(main: Callable[[], Awaitable[None]]) -> None:
    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=MockClock(autojump_threshold=0))


def test_an_interrupt_while_a_keys_pool_is_made_leaves_no_key_without_a_keeper(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Engine.run

    def interrupted_run(engine: Engine[FakeResource]) -> None:
        monkeypatch.setattr(Engine, "run", run)
        signal.raise_signal(signal.SIGINT)
        run(engine)

    monkeypatch.setattr(Engine, "run", interrupted_run)

    async def main() -> None:
        async with open_keyed_pool(worker_of, max_size=1) as keyed:
            try:
                with suppress(NoneIdle):
                    keyed.checkout_nowait("a")
                await trio.sleep(1)
            finally:
                with trio.fail_after(60):
                    async with keyed.checkout("a"):
                        with pytest.raises(CheckoutTimeout):  # it is the keeper that ends a wait
                            async with keyed.checkout("a", timeout=1):
                                pass

    run_interrupted(main)


def test_an_interrupt_in_make_worker_comes_out_when_the_key_has_its_pool() -> None:
    keys: list[str] = []

    def make_worker(key: str) -> FakeWorker:
        signal.raise_signal(signal.SIGINT)
        return FakeWorker()

    async def main() -> None:
        async with open_keyed_pool(make_worker) as keyed:
            with suppress(NoneIdle):
                keyed.checkout_nowait("a")
            keys.extend(keyed.stats)
            await trio.sleep(1)

    run_interrupted(main)
    assert keys == ["a"]


def test_an_interrupt_during_drain_leaves_the_pool_drained(monkeypatch: pytest.MonkeyPatch) -> None:
    retire = Fleet.retire

    def interrupted_retire(fleet: Fleet[FakeResource], slot: Slot[FakeResource], reason: Reason) -> None:
        monkeypatch.setattr(Fleet, "retire", retire)
        signal.raise_signal(signal.SIGINT)
        retire(fleet, slot, reason)

    async def main() -> None:
        async with open_pool(FakeWorker()) as pool:
            await pool.wait_ready(3)
            monkeypatch.setattr(Fleet, "retire", interrupted_retire)
            try:
                await pool.drain()
                await trio.sleep(1)
            finally:
                await is_drained(pool)

    run_interrupted(main)


async def is_drained(pool: Pool[FakeResource]) -> None:
    assert pool.stats.size == 0
    with pytest.raises(PoolClosed):
        await pool.run(FakeResource.use)


def worker_of(key: str) -> FakeWorker:
    return FakeWorker()
