"""The long run: random clients, owners and faults against real pools on a mock clock, for a million operations.

Each round opens one pool with options, a worker and a weather of faults drawn from the seed, lets clients loose on it,
and then demands: books that balance, every lease returned, the full capacity, each resource terminated exactly once.
A round depends on nothing but the seed and its number, so that a violation comes again with ``--seed S --round K``.

Run it with ``python -m benchmarks.soak``.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import logging
import math
import os
import random
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from contextlib import AsyncExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from itertools import accumulate, count
from mmap import PAGESIZE
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import TYPE_CHECKING, TypeAlias

import trio
import trio.testing
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from trio._core import _run as trio_scheduler

from nimblepool import (
    Backoff,
    CircuitBreaker,
    CoDel,
    LeaseExpired,
    Pool,
    PoolClosed,
    PoolError,
    PoolObserver,
    PoolOptions,
    Reason,
    Skip,
    Verdict,
    open_pool,
)
from nimblepool._options import Settings
from nimblepool._pool import engine_of
from nimblepool.testing import Fail, FakeResource, FakeWorker, Hang, Slow, check_balance

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from nimblepool import Lease, PoolStats

Operation: TypeAlias = "Callable[[Round], Awaitable[object]]"

CHECK_EVERY = 500
"""Operations between two looks at the books."""
ROUND = (1_000, 8_000)
"""Operations in a round."""
REST = 120.0
"""Virtual seconds after which all that was slow or hung has ended, and every back-off has run out."""
PATIENCE = 1000.0
"""Virtual seconds without any progress after which a round is stuck."""
REAL_PATIENCE = 120.0
"""Real seconds after which a round is stuck in a loop, or in what cannot be cancelled."""
MEGABYTE = 2**20
GROWTH = 32 * MEGABYTE
"""So much may the memory grow after the first tenth: the collector is late at times, but a leak is larger."""


class Fault(Exception):  # noqa: N818 - it stands for any error of a driver or a client
    """What goes wrong on purpose."""


class ViolationError(AssertionError):
    """The pool broke a promise."""


def require(holds: object, promise: str) -> None:
    """Raise `ViolationError` naming ``promise`` unless it ``holds``."""
    if not holds:
        raise ViolationError(promise)


# -- what goes wrong ----------------------------------------------------------------------------------------------


def draw_delay(rng: random.Random) -> object:
    """Draw what an asynchronous callback does wrong."""
    return rng.choice(
        [
            Fail(Fault("at once")),
            Fail(Fault("at once")),
            Slow(rng.uniform(0.0, 0.5)),
            Slow(rng.uniform(0.0, 2.0), Fail(Fault("after a while"))),
            Slow(5.0),  # past every deadline
            Hang(),
        ]
    )


def draw_verdict(rng: random.Random) -> object:
    """Draw what a deciding callback does wrong."""
    failures = (Fail(Fault("undecided")), "nonsense")
    return rng.choice([Verdict.RESET, Verdict.RESET, Verdict.RESET, Verdict.REMOVE, Verdict.REFRESH, *failures])


def draw_checkout(rng: random.Random) -> object:
    """Draw the same, or a refusal of this one client."""
    return Fail(Skip(Fault("not for you"))) if rng.random() < 0.2 else draw_verdict(rng)  # noqa: PLR2004


def draw_capacity(rng: random.Random) -> object:
    """Draw a new capacity, or something that is none."""
    return rng.choice([0, 1, 1, 2, 2, 3, 4, 4, -1, "many", Fail(Fault("uncounted"))])


def draw_request(rng: random.Random) -> object:
    """Draw a refusal or another request."""
    return rng.choice([Fail(Fault("refused")), "another request"])


def draw_deafness(_: random.Random) -> object:
    """Fail to listen."""
    return Fail(Fault("deaf"))


MISTAKES: dict[str, Callable[[random.Random], object]] = {
    **dict.fromkeys(("init", "terminate", "reset", "ping", "watch", "stop"), draw_delay),
    "checkout": draw_checkout,
    "checkin": draw_verdict,
    "message": draw_verdict,
    "capacity": draw_capacity,
    "enqueue": draw_request,
    "cancelled": draw_deafness,
}
RATES = (0.0, 0.0, 0.003, 0.03, 0.3)
"""How often a callback goes wrong, in the weathers that there are."""


class FaultyWorker(FakeWorker):
    """A fake whose callbacks go wrong at random, each at a rate of its own."""

    def __init__(self, rng: random.Random, *, capacity: int | None, watched: bool) -> None:
        super().__init__(capacity=capacity, watched=watched)
        self.is_shared = capacity is not None
        self.is_calm = False
        self.faults: Counter[str] = Counter()
        self.widest: dict[FakeResource, int] = {}
        """The largest capacity that each resource has had."""
        self._rng = rng
        self._rates = {callback: rng.choice(RATES) for callback in MISTAKES}

    async def init(self) -> FakeResource:
        """Open as the script says; now and then too late to be cancelled."""
        if not self.is_calm and self._rng.random() < self._rates["init"] / 4:
            with trio.CancelScope(shield=True):
                await trio.sleep(self._rng.uniform(0.0, 3.0))
        return await super().init()

    def capacity(self, resource: FakeResource) -> int:
        """Answer, and remember the answer."""
        capacity = super().capacity(resource)
        if isinstance(capacity, int):
            self.widest[resource] = max(capacity, self.widest.get(resource, 0))
        return capacity

    def replace(self, resource: FakeResource) -> FakeResource:
        """Close ``resource`` as its client does, and return another one."""
        resource.terminated.append(Reason.REPLACED)
        another = FakeResource(len(self.resources) + 1)
        self.resources.append(another)
        return another

    def most_leases(self, resource: FakeResource) -> int:
        """Return how many leases ``resource`` may ever have had at a time."""
        return self.widest.get(resource, 0) if self.is_shared else 1

    def _next(self, callback: str, subject: object) -> object:  # noqa: ARG002 - as in FakeWorker
        # In place of FakeWorker's scripts, which would have to be written ahead, and cannot be torn up for the calm.
        if self.is_calm or self._rng.random() >= self._rates.get(callback, 0.0):
            return None
        self.faults[callback] += 1
        return MISTAKES[callback](self._rng)


class Witness(PoolObserver):
    """Keeps books of its own, of what the pool says that happens."""

    def __init__(self, rng: random.Random) -> None:
        self.seen: Counter[str] = Counter()
        self._gives_up_after = rng.choice([math.inf, math.inf, 300])

    @property
    def is_reliable(self) -> bool:
        """Whether it has heard everything: one that raises is dropped."""
        return self.seen.total() < self._gives_up_after

    def checkout(self, pool: str, wait: float) -> None:  # noqa: ARG002
        """Count."""
        self._see("checkout", wait)

    def checkin(self, pool: str, used: float, error: BaseException | None) -> None:  # noqa: ARG002
        """Count."""
        self._see("checkin", used)

    def open(self, pool: str, took: float) -> None:  # noqa: ARG002
        """Count."""
        self._see("open", took)

    def open_failed(self, pool: str, error: BaseException, took: float) -> None:  # noqa: ARG002
        """Count."""
        self._see("open_failed", took)

    def close(self, pool: str, reason: Reason, age: float) -> None:  # noqa: ARG002
        """Count."""
        self._see("close", age)

    def timeout(self, pool: str, wait: float) -> None:  # noqa: ARG002
        """Count."""
        self._see("timeout", wait)

    def shed(self, pool: str, wait: float) -> None:  # noqa: ARG002
        """Count."""
        self._see("shed", wait)

    def cancelled(self, pool: str, wait: float) -> None:  # noqa: ARG002
        """Count."""
        self._see("cancelled", wait)

    def testify(self, stats: PoolStats) -> None:
        """Raise `ViolationError` unless the closed pool's books say the same."""
        if not self.is_reliable:
            return
        for event, booked in (
            ("checkout", stats.direct + stats.waited),
            ("checkin", stats.direct + stats.waited),
            ("open", stats.opened),
            ("open_failed", stats.open_failures),
            ("close", stats.closed),
            ("timeout", stats.timed_out),
            ("shed", stats.shed),
            ("cancelled", stats.cancelled),
        ):
            require(self.seen[event] == booked, f"observers saw {self.seen[event]} x {event}, the books say {booked}")

    def _see(self, event: str, seconds: float) -> None:
        require(seconds >= 0.0, f"{event} took {seconds} s")
        self.seen[event] += 1
        if not self.is_reliable:
            raise Fault("an observer that raises")


class Listener(logging.Handler):
    """Formats what the pool logs, as a log would, and notices what must never be there."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: Counter[str] = Counter()
        self.violations: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take in one record."""
        record.getMessage()
        self.lines[record.levelname] += 1
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, AssertionError):
            self.violations.append(error)


# -- what is drawn for a round ------------------------------------------------------------------------------------


def draw_options(rng: random.Random, witness: Witness) -> PoolOptions:
    """Draw the options of a pool; most of what is optional is off most of the time."""
    max_size = rng.choice([1, 1, 2, 3, 5, 8])
    options: PoolOptions = {
        "min_size": rng.choice([0, 0, 1, max_size]),
        "max_size": max_size,
        "order": rng.choice(["lifo", "fifo"]),
        "strict_size": rng.random() < 0.3,  # noqa: PLR2004
        "checkout_timeout": rng.choice([None, 0.5, 5.0, 60.0]),
        "init_timeout": rng.choice([1.0, 3.0]),
        "reset_timeout": 1.0,
        "ping_timeout": 1.0,
        "terminate_timeout": 1.0,
        "ping_batch": rng.choice([1, 4]),
        "on_open_failure": rng.choice(["raise", "wait"]),
        "on_death": rng.choice(["remove", "cancel"]),
        "backoff": Backoff(base=0.5, cap=8.0, jitter=rng.choice(["full", "none"])),
        "breaker": rng.choice([None, CircuitBreaker(1), CircuitBreaker(5)]),
        "observers": rng.choice([(), (witness,)]),
    }
    options.update(draw_extras(rng))
    return options


def draw_extras(rng: random.Random) -> PoolOptions:
    """Draw the options that are off by default."""

    def maybe(*values: float) -> float | None:
        return rng.choice([None, None, *values])

    def maybe_count(*values: int) -> int | None:
        return rng.choice([None, None, *values])

    return {
        "max_opening": maybe_count(1, 2),
        "max_waiting": maybe_count(1, 5, 20),
        "max_hold": maybe(0.2, 1.0),
        "max_idle": maybe(0.0, 0.5, 5.0),
        "max_age": maybe(1.0, 20.0),
        "max_uses": maybe_count(1, 3, 50),
        "ping_every": maybe(0.3, 3.0),
        "ping_after": maybe(0.0, 0.1, 1.0),
        "close_grace": maybe(0.0, 0.5),
        "shedding": rng.choice([None, None, CoDel(target=0.05, interval=1.0)]),
    }


# -- a round ------------------------------------------------------------------------------------------------------


class Round:
    """One pool, its clients and its owners."""

    def __init__(self, seed: str, operations: int) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - no secret
        shared = self.rng.random() < 0.4  # noqa: PLR2004
        self.worker = FaultyWorker(
            self.rng,
            capacity=self.rng.randint(1, 4) if shared else None,
            watched=self.rng.random() < 0.4,  # noqa: PLR2004
        )
        self.witness = Witness(self.rng)
        self.options = draw_options(self.rng, self.witness)
        self.settings = Settings(**self.options)
        self.largest = self.settings.max_size
        self.left = operations
        self.done = 0
        self.wrong: BaseException | None = None
        self.outcomes: Counter[str] = Counter()
        self.leases: Counter[FakeResource] = Counter()
        self.scopes: dict[int, trio.CancelScope] = {}
        self.pool: Pool[FakeResource]
        self.crowd: trio.Nursery

    async def play(self) -> None:
        """Run the round.

        Raises:
            AssertionError: the pool broke a promise.
        """
        with trio.CancelScope() as whole:
            async with trio.open_nursery() as self.crowd:
                with trio.CancelScope() as scope:
                    async with open_pool(self.worker, **self.options) as self.pool:
                        # The pool's jitter must come again with the seed, too.
                        engine_of(self.pool).state.supply._rng.seed(self.rng.random())  # noqa: SLF001
                        await self.use_up(whole, scope)
        require(not whole.cancelled_caught, f"somebody waits for ever: {self.pool.stats}")
        self.check_closed()

    async def use_up(self, whole: trio.CancelScope, scope: trio.CancelScope) -> None:
        """Do all that is done with an open pool; ``scope`` is around it, ``whole`` around everything."""
        try:
            await self.bustle()
            whole.deadline = trio.current_time() + PATIENCE
            await self.prove_capacity()
            await self.end(scope)
        except (AssertionError, BaseExceptionGroup) as error:
            self.wrong = error  # the pool closes next, and if it is broken that may never end
            raise

    async def bustle(self) -> None:
        """Let clients loose on the pool, and wait until the operations are used up."""
        async with trio.open_nursery() as owners:
            owners.start_soon(self.look_after)
            async with trio.open_nursery() as clients:
                for number in range(self.rng.choice([1, 4, 12, 40])):
                    clients.start_soon(self.be_client, number)
            owners.cancel_scope.cancel()

    async def look_after(self) -> None:
        """Do what an owner must do now and then, or clients without a timeout wait for ever with good reason."""
        done = -1
        for turn in count():
            if turn % (PATIENCE // 5.0) == 0:
                require(self.done > done, f"clients wait for ever: {self.pool.stats}")
                done = self.done
            if turn % 20 == 0:
                gc.collect()
            await trio.sleep(5.0)
            if self.worker.is_shared:
                self.worker.capacity_now = self.rng.randint(1, 4)
            self.pool.refresh_capacity()

    async def be_client(self, number: int) -> None:
        """Do one operation after the other."""
        while self.left > 0:
            self.left -= 1
            self.done += 1
            if self.done % CHECK_EVERY == 0:
                self.check_open()
            (operation,) = self.rng.choices(OPERATIONS, cum_weights=CUMULATED)
            deadline = trio.current_time() + self.rng.expovariate(1.0) if self.rng.random() < 0.1 else math.inf  # noqa: PLR2004
            with trio.CancelScope(deadline=deadline) as self.scopes[number]:
                await self.attempt(operation)
            await trio.sleep(self.rng.choice([0.0, self.rng.expovariate(20.0)]))

    async def attempt(self, operation: Operation) -> None:
        """Do ``operation``, and count what became of it.

        Raises:
            BaseException: whatever clients do not have to expect, and ``trio.Cancelled``.
        """
        name = operation.__name__
        try:
            await operation(self)
        except trio.Cancelled:
            self.outcomes[f"{name}: Cancelled"] += 1
            raise
        except PoolClosed:
            self.left = 0
            self.outcomes[f"{name}: PoolClosed"] += 1
        except (PoolError, Fault) as error:
            self.outcomes[f"{name}: {type(error).__name__}"] += 1
        except TypeError as error:
            if "must return a nimblepool.Verdict" not in str(error):
                raise
            self.outcomes[f"{name}: nonsense"] += 1
        else:
            self.outcomes[name] += 1

    # What clients do

    async def lend(self) -> None:
        """Check out, in every way there is."""
        async with self.checkout() as lease:
            await self.use(lease)

    async def lend_now(self) -> None:
        """Check out without waiting."""
        with self.pool.checkout_nowait(self.rng.random()) as lease:
            await self.use(lease)

    async def run(self) -> None:
        """Let the pool call a function."""
        await self.pool.run(self.use_bare)

    async def lend_two(self) -> None:
        """Check out in the block of a checkout, which can deadlock with others until the inner one times out."""
        async with self.checkout() as outer, self.pool.checkout(timeout=self.rng.uniform(0.0, 1.0)) as inner:
            if not self.worker.is_shared and outer.is_held:
                require(inner.resource is not outer.resource, "one resource was lent twice to one client")
            await self.use(inner)

    async def lend_many(self) -> None:
        """Come as a crowd, and go all at the same time."""
        with trio.move_on_after(self.rng.expovariate(1.0)):
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(self.attempt, Round.lend)

    async def acquire(self) -> None:
        """Acquire and release."""
        lease = await self.pool.acquire()
        try:
            await self.use(lease)
        finally:
            lease.release()
            lease.release()

    async def hand_over(self) -> None:
        """Acquire a lease, and have another task use and release it."""
        lease = await self.pool.acquire(owner=None)

        async def finish(_: Round) -> None:
            try:
                await self.use(lease)
            finally:
                lease.release()

        self.crowd.start_soon(self.attempt, finish)

    async def lose(self) -> None:
        """Acquire a lease and lose it: the collector notices."""
        await self.pool.acquire(owner=None)

    async def forget(self) -> None:
        """Acquire a lease in a task that ends without releasing it: the pool notices."""
        kept: list[Lease[FakeResource]] = []

        async def acquire(_: Round) -> None:
            kept.append(await self.pool.acquire())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.attempt, acquire)
        await trio.sleep(self.rng.choice([0.0, 1.0]))
        for lease in kept:
            lease.release()

    # What owners do

    async def resize(self) -> None:
        """Change the limits."""
        max_size = self.rng.randint(1, 10)
        self.largest = max(self.largest, max_size)
        self.pool.resize(min_size=self.rng.randint(0, max_size), max_size=max_size)

    async def refresh(self) -> None:
        """Retire all that is open."""
        self.pool.refresh(self.rng.choice([0.0, 1.0, 5.0]))

    async def pause(self) -> None:
        """Pause for a while."""
        self.pool.pause()
        try:
            await trio.sleep(self.rng.expovariate(2.0))
        finally:
            self.pool.resume()

    async def broadcast(self) -> None:
        """Tell every idle resource something."""
        self.pool.broadcast("news")

    async def recount(self) -> None:
        """Change the capacity of every resource."""
        if self.worker.is_shared:
            # What carries nothing and may not idle would be opened again and again, in no time.
            self.worker.capacity_now = self.rng.randint(1 if self.settings.max_idle == 0.0 else 0, 4)
        self.pool.refresh_capacity()

    async def await_readiness(self) -> None:
        """Wait until some are open, not for ever."""
        with trio.move_on_after(2.0):
            await self.pool.wait_ready(self.rng.randint(1, self.pool.stats.max_size))

    async def look(self) -> None:
        """Read the figures."""
        stats = self.pool.stats
        require(stats.balanced, f"the books do not balance: {stats}")
        require(repr(self.pool), "a pool has a repr")

    async def kill(self) -> None:
        """Let a resource die, wherever it is."""
        recent = self.worker.resources[-20:]
        if recent:
            self.rng.choice(recent).kill()

    async def cancel(self) -> None:
        """Cancel a client, whatever it does at the moment."""
        self.rng.choice(list(self.scopes.values())).cancel()

    # Using a lease

    def checkout(self) -> Lease[FakeResource]:
        """Make a checkout, with or without a timeout of its own."""
        request = self.rng.random()
        if self.rng.random() < 0.7:  # noqa: PLR2004
            return self.pool.checkout(request)
        return self.pool.checkout(request, timeout=self.rng.choice([0, 0.1, 1.0, 20.0, None]))

    async def use(self, lease: Lease[FakeResource]) -> None:
        """Hold ``lease`` for a while, and end it in one way or another."""
        resource = lease.resource
        with self.exclusively(resource):
            await trio.sleep(self.rng.choice([0.0, 0.0, self.rng.expovariate(10.0), self.rng.expovariate(1.0)]))
            if lease.is_held:
                require(lease.resource is resource, "a lease changed its resource")
                require(resource.is_open, f"{resource} was terminated under its lease")
                self.part(lease)

    async def use_bare(self, resource: FakeResource) -> None:
        """Hold ``resource`` for a while."""
        with self.exclusively(resource):
            await trio.sleep(self.rng.expovariate(10.0))

    @contextmanager
    def exclusively(self, resource: FakeResource) -> Iterator[None]:
        """Count the leases of ``resource``, for the block."""
        self.leases[resource] += 1
        now, most = self.leases[resource], self.worker.most_leases(resource)
        require(now <= most, f"{resource} has {now} leases, and never carried more than {most}")
        try:
            yield
        finally:
            self.leases[resource] -= 1

    def part(self, lease: Lease[FakeResource]) -> None:
        """End the body of ``lease``."""
        match self.rng.choices(ENDINGS, cum_weights=ENDINGS_CUMULATED)[0]:
            case "error":
                raise Fault("a client's own")
            case "remove":
                lease.remove()
            case "release":
                lease.release()
                with suppress(LeaseExpired):
                    require(lease.resource is None, "a lease that has ended gave out its resource")
            case "kill":
                lease.resource.kill()
            case "replace" if not self.worker.is_shared:
                lease.replace(self.worker.replace(lease.resource))
            case _:
                pass

    # What must hold

    def check_open(self) -> None:
        """Raise unless the books of the pool at work are in order."""
        check_balance(self.pool)
        stats = self.pool.stats
        size = stats.size + stats.closing if self.settings.strict_size else stats.size
        require(size <= self.largest, f"{size} resources, and never more than {self.largest} were allowed")

    async def prove_capacity(self) -> None:
        """Still the wind, and demand all that the pool may lend at a time."""
        size = self.rng.randint(1, 8)
        self.largest = max(self.largest, size)
        self.worker.is_calm = True
        self.worker.capacity_now = each = self.rng.randint(1, 4) if self.worker.is_shared else 1
        self.pool.resize(min_size=0, max_size=size)
        if (most := self.settings.max_uses) is not None:
            self.pool.refresh()  # those that are half used up carry less
            each = min(each, most)
        self.pool.refresh_capacity()
        gc.collect()
        await trio.sleep(REST)
        self.check_open()
        stats = self.pool.stats
        require(stats.leases == stats.leased == stats.waiting == 0, f"nobody is left, but the books say {stats}")
        await self.fill(size, each)

    async def fill(self, size: int, each: int) -> None:
        """Take ``each`` leases on ``size`` resources at the same time."""
        async with AsyncExitStack() as stack:
            lent: Counter[FakeResource] = Counter()
            for _ in range(size * each):
                lease = await stack.enter_async_context(self.pool.checkout(timeout=60.0))
                lent[lease.resource] += 1
            require(len(lent) == size, f"{size} resources were to be lent, but {len(lent)} were")
            require(set(lent.values()) == {each}, f"{each} leases were to be on each, but {list(lent.values())} were")
            self.check_open()

    async def end(self, scope: trio.CancelScope) -> None:
        """Close the pool, in one way or another, on clients that are at work."""
        self.worker.is_calm = False
        self.left = 200
        for number in range(self.rng.choice([0, 5, 20])):
            self.crowd.start_soon(self.be_client, number)
        await trio.sleep(self.rng.expovariate(1.0))
        match self.rng.choice(["leave", "close", "drain", "cancel"]):
            case "close":
                await self.pool.close()
            case "drain":
                with trio.move_on_after(30.0):
                    await self.pool.drain()
            case "cancel":
                scope.deadline = trio.current_time() + self.rng.choice([0.0, 0.1, 1.0])
            case _:
                pass

    def check_closed(self) -> None:
        """Raise unless nothing is left of the pool."""
        check_balance(self.pool)
        require(self.pool.stats.leases == 0, "a closed pool has leases")
        for opened in self.worker.resources:
            require(len(opened.terminated) == 1, f"{opened} was terminated for {opened.terminated}, not once")
        if self.settings.observers:
            self.witness.testify(self.pool.stats)


WEIGHTS: dict[Operation, float] = {
    Round.lend: 60,
    Round.lend_now: 8,
    Round.run: 5,
    Round.lend_two: 1,
    Round.lend_many: 0.3,
    Round.acquire: 8,
    Round.hand_over: 2,
    Round.lose: 0.7,
    Round.forget: 0.7,
    Round.resize: 0.7,
    Round.refresh: 0.3,
    Round.pause: 0.3,
    Round.broadcast: 0.7,
    Round.recount: 1,
    Round.await_readiness: 0.7,
    Round.look: 2,
    Round.kill: 2,
    Round.cancel: 4,
}
OPERATIONS = list(WEIGHTS)
CUMULATED = list(accumulate(WEIGHTS.values()))
ENDINGS = ("well", "error", "remove", "release", "kill", "replace")
ENDINGS_CUMULATED = list(accumulate((80, 8, 3, 4, 3, 2)))


# -- the run ------------------------------------------------------------------------------------------------------


BOOKED = (
    *("started", "direct", "waited", "timed_out", "shed", "cancelled", "refused", "failed"),
    *("opened", "open_failures", "closed", "lost"),
)


@dataclass
class Tally:
    """The sums over all rounds."""

    rounds: int = 0
    operations: int = 0
    books: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    def add(self, game: Round) -> None:
        """Take in a round."""
        self.rounds += 1
        self.operations += game.done
        self.books.update({name: getattr(game.pool.stats, name) for name in BOOKED})
        self.outcomes.update(game.outcomes)
        self.faults.update(game.worker.faults)


def play_round(seed: int, number: int, listener: Listener) -> Round:
    """Play round ``number``: the same one for the same seed.

    Raises:
        BaseException: the pool broke a promise.
    """
    game = Round(f"{seed}/{number}", random.Random(f"{seed}/{number}/size").randint(*ROUND))  # noqa: S311 - no secret
    # trio draws the order in which tasks run; this is how Hypothesis makes it draw the same again.
    trio_scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # noqa: SLF001
    trio_scheduler._r.seed(f"{seed}/{number}/trio")  # noqa: SLF001
    give_up_later(game, f"round {number} does not end; to see it again: --seed {seed} --round {number}")
    # By itself it collects at times that depend on what was before, and no round would come again: the round does it.
    gc.disable()
    try:
        trio.run(game.play, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        gc.enable()
        signal.setitimer(signal.ITIMER_REAL, 0.0)
    if listener.violations:
        raise listener.violations[0]
    return game


def give_up_later(game: Round, why: str) -> None:
    """End the program after `REAL_PATIENCE`, with ``why`` and where: an exception would go astray in some callback."""

    def give_up(*_: object) -> None:
        if game.wrong is not None:
            traceback.print_exception(game.wrong)
        sys.stderr.write(f"\n{why}\n")
        sys.stderr.flush()
        faulthandler.dump_traceback()
        os._exit(1)

    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, REAL_PATIENCE)


def soak(options: argparse.Namespace, show: Display, listener: Listener, tally: Tally) -> str | None:
    """Play rounds until the operations are done, and return what went wrong, with the way to see it again."""
    numbers = count() if options.round is None else iter([options.round])
    memory = Memory()
    for number in numbers:
        try:
            tally.add(play_round(options.seed, number, listener))
        except BaseException:  # noqa: BLE001 - whatever it is, it comes with the seed
            return f"{traceback.format_exc()}\nto see it again: --seed {options.seed} --round {number}"
        gc.collect()
        memory.measure(tally.operations / options.operations)
        show.progress(tally)
        if tally.operations >= options.operations:
            break
    show.say(str(memory))
    return memory.complaint()


class Memory:
    """The resident memory of this process, at the start, after the first tenth, and now; in bytes."""

    def __init__(self) -> None:
        self.start = self.tenth = self.now = resident()
        self._share = 0.0

    def measure(self, share: float) -> None:
        """Read it, when ``share`` of the operations are done."""
        self.now = resident()
        if self._share < 0.1:  # noqa: PLR2004 - a tenth
            self.tenth = self.now
        self._share = share

    def complaint(self) -> str | None:
        """Say so if it grew."""
        grown = self.now - self.tenth
        return f"the memory grew by {grown // MEGABYTE} MB" if grown > GROWTH else None

    def __str__(self) -> str:
        start, tenth, now = (size / MEGABYTE for size in (self.start, self.tenth, self.now))
        return f"resident memory: {start:.1f} MB at the start, {tenth:.1f} MB after a tenth, {now:.1f} MB at the end"


def resident() -> int:
    """Return this process's resident memory, in bytes; its highest one, where the system tells no other."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * PAGESIZE
    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


# -- what the reader sees -----------------------------------------------------------------------------------------


class Display:
    """Plain lines, one in ten seconds."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._next_line = 0.0

    def progress(self, tally: Tally) -> None:
        """Show how far it is."""
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + 10.0
            self.say(f"{tally.operations:>9,} of {self.total:,} operations, {tally.rounds} pools")

    def say(self, text: str) -> None:
        """Print ``text``."""
        print(text, flush=True)


class Bar(Display):
    """A progress bar, for a terminal."""

    def __init__(self, total: int, bar: Progress) -> None:
        super().__init__(total)
        self._bar = bar
        self._task = bar.add_task("operations", total=total)

    def progress(self, tally: Tally) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=min(tally.operations, self.total))

    def say(self, text: str) -> None:
        """Print ``text`` above the bar."""
        self._bar.console.print(text, highlight=False, markup=False)


def report(tally: Tally, listener: Listener, took: float, show: Display) -> None:
    """Print the sums."""
    show.say(f"{tally.operations:,} operations on {tally.rounds} pools in {took:.1f} s")
    for title, counts in (
        ("books", tally.books),
        ("faults", tally.faults),
        ("log", listener.lines),
        ("outcomes", tally.outcomes),
    ):
        show.say(f"\n{title}")
        for name, number in sorted(counts.items()) if title == "outcomes" else counts.items():
            show.say(f"  {name:36} {number:>12,}")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--operations", type=int, default=1_000_000, help="how many in all (1,000,000)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32), help="default: a new one")
    parser.add_argument("--round", type=int, help="play this one alone, as a violation says")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run, and return the exit code: 1 if the pool broke a promise."""
    options = parse(arguments)
    listener = Listener()
    logger = logging.getLogger("nimblepool")
    logger.addHandler(listener)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns) if Console().is_terminal else None
    show = Display(options.operations) if bar is None else Bar(options.operations, bar)
    show.say(f"seed {options.seed}")
    began = time.monotonic()
    tally = Tally()
    with bar or nullcontext(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # leases are lost on purpose
        wrong = soak(options, show, listener, tally)
        report(tally, listener, time.monotonic() - began, show)
    logger.removeHandler(listener)
    if wrong is not None:
        show.say(f"\n{wrong}\nVIOLATION (seed {options.seed})")
        return 1
    show.say("\nno violation")
    return 0


if __name__ == "__main__":
    sys.exit(main())
