"""A conformance run: whether a worker keeps its side of the contract.

It runs in two parts, both within one pool, so that the worker's ``start`` and ``stop`` are called once, as they should
be. In the first part the callbacks are called directly, beside the pool: there an answer or an error can be seen that a
pool would only log. In the second part the pool calls them, in the situations that a worker must survive: bodies that
fail or are cancelled, clients that give up, resets, and pings that fail.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

from nimblepool._check import check_count
from nimblepool._errors import PoolError
from nimblepool._pool import open_pool

from .books import check_books
from .complaint import broken
from .decisions import Decisions
from .recorder import Recorder
from .situations import MOMENT, Situations
from .supply import Supply
from .upkeep import check_upkeep
from .watch import check_watch

if TYPE_CHECKING:
    from nimblepool._worker import PoolWorker

R = TypeVar("R")


async def check_worker(worker: PoolWorker[R], *, request: object = None, cycles: int = 3) -> None:
    """Try out whether ``worker`` keeps to what `PoolWorker` says, and say what to do if it does not.

    It opens and closes real resources: a dozen, and two more for each checkpoint of ``init``. It takes milliseconds and
    as long as the callbacks do; with a ``trio.testing.MockClock`` it needs one that jumps
    (``autojump_threshold=0``). The worker's ``start`` and ``stop`` are called once.

    Cancelling it closes what was opened. A callback that can never be cancelled hangs it, as it would hang a pool.

    Args:
        worker: the worker; it must not serve a pool meanwhile.
        request: what is passed to ``checkout`` and ``enqueue``; one that the worker accepts.
        cycles: how often the pool goes through all situations, 1 or more.

    Raises:
        AssertionError: naming the callback, the rule and what to do.
        ValueError: ``cycles`` is less than 1.
    """
    check_count("cycles", cycles, least=1)
    recorder = Recorder(worker)
    try:
        async with open_pool(recorder, max_size=2, ping_after=MOMENT, name="check_worker") as pool:
            await _check_alone(worker, Decisions(worker, request, perf_counter), cycles)
            await Situations(recorder, pool, request).go_through(cycles)
    except PoolError as error:
        raise broken(worker, "init", f"does not serve a pool: {error}", "see the error's cause") from error
    recorder.check()
    check_books(pool)


async def _check_alone(worker: PoolWorker[R], decisions: Decisions[R], cycles: int) -> None:
    """Call the callbacks as a pool would, and look at what they answer."""
    supply = Supply(worker)
    await supply.check_init()
    await supply.check_cancelled_init()
    for _ in range(cycles):
        async with supply.resource() as resource:
            await decisions.check(resource)
    decisions.check_speed()
    await check_upkeep(worker, supply)
    await check_watch(worker, supply)
