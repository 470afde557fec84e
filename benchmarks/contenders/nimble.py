"""This project's pool, with default options and with each option that might cost something.

Nothing is stubbed but the resource: the worker returns a plain object, and all callbacks are the defaults.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from benchmarks.contender import Contender
from nimblepool import CoDel, PoolObserver, PoolOptions, PoolWorker, open_keyed_pool, open_pool

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from typing import Unpack

    from benchmarks.contender import Client, Opener
    from nimblepool import Pool

LONG = 3_600.0
"""Seconds. Long enough for a timer to be armed and never to fire."""


class Stub:
    """A resource that does nothing."""


class StubWorker(PoolWorker[Stub]):
    """Opens stubs."""

    async def init(self) -> Stub:
        """Open one."""
        return Stub()


class SharedWorker(StubWorker):
    """Opens stubs that carry 100 leases each."""

    def capacity(self, resource: Stub) -> int:  # noqa: ARG002 - all alike
        """Say 100."""
        return 100


class PingedWorker(StubWorker):
    """Opens stubs that can be pinged."""

    async def ping(self, resource: Stub) -> None:
        """Find it well."""


def open_stubs(_key: object) -> StubWorker:
    """Return the worker for any key."""
    return StubWorker()


class Watcher(PoolObserver):
    """Hears everything and does nothing."""


@asynccontextmanager
async def _open_full(worker: PoolWorker[Stub], size: int, **options: Unpack[PoolOptions]) -> AsyncGenerator[Pool[Stub]]:
    async with open_pool(worker, **(options | PoolOptions(max_size=size))) as pool:
        await pool.wait_ready(size)
        yield pool


def _plain(worker: PoolWorker[Stub], **options: Unpack[PoolOptions]) -> Opener:
    """Return a contender's opener: clients give back at once what they were lent."""

    @asynccontextmanager
    async def opener(size: int) -> AsyncGenerator[Client]:
        async with _open_full(worker, size, **options) as pool:

            async def client(leases: int) -> None:
                for _ in range(leases):
                    async with pool.checkout():
                        pass

            yield client

    return opener


@asynccontextmanager
async def open_nowait(size: int) -> AsyncGenerator[Client]:
    """Lend by ``checkout_nowait``; only for as many tasks as there are resources."""
    async with _open_full(StubWorker(), size) as pool:

        async def client(leases: int) -> None:
            for _ in range(leases):
                with pool.checkout_nowait():
                    pass
            await trio.lowlevel.checkpoint()

        yield client


@asynccontextmanager
async def open_run(size: int) -> AsyncGenerator[Client]:
    """Lend by ``run`` to a function that returns at once."""
    async with _open_full(StubWorker(), size) as pool:

        async def use(_resource: Stub) -> None:
            pass

        async def client(leases: int) -> None:
            for _ in range(leases):
                await pool.run(use)

        yield client


@asynccontextmanager
async def open_acquire(size: int) -> AsyncGenerator[Client]:
    """Lend by ``acquire`` and ``release``, which the pool watches over."""
    async with _open_full(StubWorker(), size) as pool:

        async def client(leases: int) -> None:
            for _ in range(leases):
                lease = await pool.acquire()
                lease.release()

        yield client


@asynccontextmanager
async def open_keyed(size: int) -> AsyncGenerator[Client]:
    """Lend by one key of a keyed pool."""
    async with open_keyed_pool(open_stubs, max_size=size) as keyed:

        async def client(leases: int) -> None:
            for _ in range(leases):
                async with keyed.checkout("key"):
                    pass

        yield client


def _many_keys(used: int | None) -> Opener:
    """Return the opener of a pool of ``size`` keys under one limit, of which ``used`` are used in turn."""

    @asynccontextmanager
    async def opener(size: int) -> AsyncGenerator[Client]:
        turns = used or size
        async with open_keyed_pool(open_stubs, max_size=1, max_total=size, checkout_timeout=None) as keyed:
            for key in range(size):
                async with keyed.checkout(key):
                    pass

            async def client(leases: int) -> None:
                for lease in range(leases):
                    async with keyed.checkout(lease % turns):
                        pass

            yield client

    return opener


@asynccontextmanager
async def open_held(size: int) -> AsyncGenerator[Client]:
    """Lend to clients that keep the resource for one step of the event loop, as the peers' clients do."""
    async with _open_full(StubWorker(), size) as pool:
        checkpoint = trio.lowlevel.checkpoint

        async def client(leases: int) -> None:
            for _ in range(leases):
                async with pool.checkout():
                    await checkpoint()

        yield client


VERSION = "this tree"
CONTENDERS = {
    "pool": Contender("trio", _plain(StubWorker())),
    "patient pool": Contender("trio", _plain(StubWorker(), checkout_timeout=LONG)),
    "checkout_nowait": Contender("trio", open_nowait),
    "run": Contender("trio", open_run),
    "acquire": Contender("trio", open_acquire),
    "keyed": Contender("trio", open_keyed),
    "one of the keys": Contender("trio", _many_keys(1)),
    "all keys in turn": Contender("trio", _many_keys(None)),
    "shared, capacity 100": Contender("trio", _plain(SharedWorker())),
    "observer": Contender("trio", _plain(StubWorker(), observers=(Watcher(),))),
    "max_hold": Contender("trio", _plain(StubWorker(), max_hold=LONG)),
    "max_idle": Contender("trio", _plain(StubWorker(), max_idle=LONG)),
    "max_age": Contender("trio", _plain(StubWorker(), max_age=LONG)),
    "ping_every": Contender("trio", _plain(PingedWorker(), ping_every=LONG)),
    "CoDel": Contender("trio", _plain(StubWorker(), shedding=CoDel(target=LONG, interval=1.0))),
    "nimblepool": Contender("trio", open_held),
}
