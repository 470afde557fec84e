"""What trio itself offers to limit how many tasks do something at a time.

Each is used in its cheapest form that gives back what it took when the body raises.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from benchmarks.contender import Contender

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from types import TracebackType

    from benchmarks.contender import Client, Opener


@asynccontextmanager
async def open_semaphore(size: int) -> AsyncGenerator[Client]:
    """``acquire`` and ``release``: what the budgets are measured against."""
    semaphore = trio.Semaphore(size)

    async def client(leases: int) -> None:
        for _ in range(leases):
            await semaphore.acquire()
            try:
                pass
            finally:
                semaphore.release()

    yield client


@asynccontextmanager
async def open_semaphore_block(size: int) -> AsyncGenerator[Client]:
    """The same by ``async with``, as the pool is used."""
    semaphore = trio.Semaphore(size)

    async def client(leases: int) -> None:
        for _ in range(leases):
            async with semaphore:
                pass

    yield client


def _many_semaphores(used: int | None) -> Opener:
    """Return the opener of ``size`` semaphores in a dictionary, of which ``used`` are used in turn."""

    @asynccontextmanager
    async def opener(size: int) -> AsyncGenerator[Client]:
        turns = used or size
        semaphores = {key: trio.Semaphore(1) for key in range(size)}

        async def client(leases: int) -> None:
            for lease in range(leases):
                semaphore = semaphores[lease % turns]
                await semaphore.acquire()
                try:
                    pass
                finally:
                    semaphore.release()

        yield client

    return opener


@asynccontextmanager
async def open_limiter(size: int) -> AsyncGenerator[Client]:
    """``CapacityLimiter``, which also remembers who borrowed."""
    limiter = trio.CapacityLimiter(size)

    async def client(leases: int) -> None:
        for _ in range(leases):
            async with limiter:
                pass

    yield client


@asynccontextmanager
async def open_channel(size: int) -> AsyncGenerator[Client]:
    """A memory channel full of tokens: the pool that one writes in four lines."""
    send, receive = trio.open_memory_channel[object](size)
    for _ in range(size):
        send.send_nowait(object())

    async def client(leases: int) -> None:
        for _ in range(leases):
            token = await receive.receive()
            try:
                pass
            finally:
                send.send_nowait(token)

    yield client


@asynccontextmanager
async def open_nothing(_size: int) -> AsyncGenerator[Client]:
    """Only the checkpoint that every checkout contains."""
    checkpoint = trio.lowlevel.checkpoint

    async def client(leases: int) -> None:
        for _ in range(leases):
            await checkpoint()

    yield client


class Turnstile:
    """A context manager that is a checkpoint, and nothing else."""

    async def __aenter__(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


@asynccontextmanager
async def open_turnstile(_size: int) -> AsyncGenerator[Client]:
    """What is left of a checkout without the pool: an ``async with`` and the two halves of trio's checkpoint."""
    turnstile = Turnstile()

    async def client(leases: int) -> None:
        for _ in range(leases):
            async with turnstile:
                pass

    yield client


VERSION = f"trio {trio.__version__}"
CONTENDERS = {
    "trio.Semaphore": Contender("trio", open_semaphore),
    "trio.Semaphore, async with": Contender("trio", open_semaphore_block),
    "trio.CapacityLimiter": Contender("trio", open_limiter),
    "memory channel": Contender("trio", open_channel),
    "an async with that is a checkpoint": Contender("trio", open_turnstile),
    "trio's checkpoint alone": Contender("trio", open_nothing),
    "one of the semaphores": Contender("trio", _many_semaphores(1)),
    "all semaphores in turn": Contender("trio", _many_semaphores(None)),
}
