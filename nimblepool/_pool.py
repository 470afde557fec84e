"""The pool as its users see it."""

from __future__ import annotations

import inspect
from contextlib import asynccontextmanager, suppress
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Concatenate, Final, Generic, ParamSpec, TypeVar, final

import trio

from ._acquired import AcquiredLease
from ._check import check_count, check_optional_seconds, check_seconds, check_type
from ._engine import Engine
from ._lease import Lease, PromptCheckout
from ._nursery import open_quiet_nursery
from ._options import PoolOptions, Settings, check_sizes, settings_from
from ._quota import Quota
from ._worker import PoolWorker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from typing import Unpack

    from ._stats import PoolStats

R = TypeVar("R")
T = TypeVar("T")
P = ParamSpec("P")


class Default(Enum):
    """What an argument is when it is not given, where ``None`` means something else."""

    VALUE = "default"

    def __repr__(self) -> str:
        return "<default>"


DEFAULT: Final = Default.VALUE


@final
class Pool(Generic[R]):
    """Lends resources. Made by `open_pool` and `serve_pool` only.

    All methods but ``stats`` belong to the trio thread in which the pool was opened.
    """

    __slots__ = ("_engine",)

    def __init__(self, engine: Engine[R]) -> None:
        self._engine = engine

    def checkout(self, request: object = None, *, timeout: float | Default | None = DEFAULT) -> Lease[R]:
        """Lend a resource to the block: ``async with pool.checkout() as lease: ... lease.resource ...``.

        Waiters are served strictly in the order in which they came. Entering is always a checkpoint. If it is
        cancelled, nothing is lost; leaving is not a checkpoint and cannot be cancelled. What the block raises comes
        out as it is.

        Args:
            request: handed to the worker's ``checkout``, and to its ``enqueue`` and ``cancelled`` if it comes to that.
            timeout: seconds for all of queueing, opening, pinging and resetting; ``None`` for no limit; by default
                ``checkout_timeout``. With 0 it succeeds only if a resource is idle and needs no ping or reset first.

        Raises:
            CheckoutTimeout: ``timeout`` ran out.
            PoolClosed: the pool is draining, closing or closed.
            PoolOverloaded: ``max_waiting`` is reached, or ``shedding`` refused the client.
            PoolUnavailable: no resource could be opened.
            LeaseTimeout: the block took longer than ``max_hold``.
            LeaseRevoked: the pool closed during the block, and ``close_grace`` ran out.
            ResourceLost: the resource died during the block, and ``on_death`` is ``"cancel"``.
            BaseException: what the worker's ``checkout`` or ``enqueue`` raised.
        """
        engine = self._engine
        return engine.lease_type(engine, request, engine.default_timeout if timeout is DEFAULT else _timeout(timeout))

    def checkout_nowait(self, request: object = None) -> PromptCheckout[R]:
        """Lend an idle resource to the block: ``with pool.checkout_nowait() as lease``. No checkpoint.

        Raises:
            NoneIdle: nothing is idle. Raised at once if that is so already, else when the block is entered.
            PoolClosed: likewise.
            BaseException: what the worker's ``checkout`` raised.
        """
        engine = self._engine
        engine.check_thread()
        if not engine.state.can_lend():
            raise engine.refuse_now()
        return PromptCheckout(engine.lease_type(engine, request, 0.0))

    async def acquire(
        self,
        request: object = None,
        *,
        timeout: float | Default | None = DEFAULT,
        owner: trio.lowlevel.Task | Default | None = DEFAULT,
    ) -> Lease[R]:
        """Lend a resource until ``lease.release()`` is called, for frameworks whose lease outlives a function.

        If the owner ends without releasing it, or the lease is garbage-collected, the pool takes the resource back,
        removes it, and says so in a ``ResourceWarning``. Prefer `checkout`, which cannot be forgotten.

        Args:
            request: as in `checkout`.
            timeout: as in `checkout`.
            owner: the task whose end ends the lease; by default the current one; ``None`` if the lease will rightly
                move between tasks.

        Raises:
            PoolError: as `checkout`.
        """
        engine = self._engine
        seconds = engine.default_timeout if timeout is DEFAULT else _timeout(timeout)
        holder = trio.lowlevel.current_task() if owner is DEFAULT else owner
        if holder is not None:
            check_type("owner", holder, trio.lowlevel.Task)
        lease = AcquiredLease(engine, request, seconds, holder, caller())
        return await lease.__aenter__()

    async def run(self, fn: Callable[Concatenate[R, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return ``await fn(resource, *args, **kwargs)`` with a resource lent for as long as it takes.

        Raises:
            PoolError: as `checkout`.
            BaseException: what ``fn`` raised.
        """
        async with self.checkout() as lease:
            return await fn(lease.resource, *args, **kwargs)

    async def wait_ready(self, n: int | None = None) -> None:
        """Wait until ``n`` resources are open; by default ``min_size``, or 1 if that is 0. Opens them if need be.

        It waits as long as it takes: put it under ``trio.fail_after``. Cancelling it disturbs nothing.

        Raises:
            ValueError: ``n`` is not between 1 and ``max_size``.
            PoolUnavailable: opening one failed and ``on_open_failure`` is not ``"wait"``.
            PoolClosed: the pool was closed meanwhile.
        """
        sizing = self._engine.state.sizing
        count = max(1, sizing.min_size) if n is None else n
        check_count("n", count, least=1)
        if count > sizing.max_size:
            raise ValueError(f"n must be at most max_size ({sizing.max_size}), not {count}")
        if count > self._engine.room:
            raise ValueError(f"n must be at most max_total ({self._engine.room:g}), not {count}")
        await self._engine.wait_ready(count)

    def resize(self, *, min_size: int | None = None, max_size: int | None = None) -> None:
        """Change the limits, at once: the surplus is retired, leased resources at the end of their leases.

        Raises:
            ValueError: the new limits are not ``0 <= min_size <= max_size`` and ``max_size >= 1``.
        """
        engine = self._engine
        smallest = engine.state.sizing.min_size if min_size is None else min_size
        largest = engine.state.sizing.max_size if max_size is None else max_size
        check_sizes(smallest, largest)
        engine.tell(engine.state.resize, smallest, largest, engine.now())

    def refresh(self, spread: float = 0.0) -> None:
        """Retire every present resource, one after the other over ``spread`` seconds.

        None is lent again after its turn; those that are leased at their turn are closed at the end of the lease.
        """
        check_seconds("spread", spread)
        if spread == inf:
            raise ValueError("spread must be finite")
        self._engine.tell(self._engine.state.refresh, spread, self._engine.now())

    def pause(self) -> None:
        """Lend nothing until `resume`: checkouts queue, under their deadlines. Leases go on."""
        self._engine.tell(self._engine.state.pause)

    def resume(self) -> None:
        """End a `pause` and serve who waits."""
        self._engine.tell(self._engine.state.resume, self._engine.now())

    def broadcast(self, message: object) -> None:
        """Hand ``message`` to the worker's ``message`` for every idle resource, and follow the verdicts."""
        self._engine.tell(self._engine.state.broadcast, message, self._engine.now())

    def refresh_capacity(self) -> None:
        """Ask the worker for the capacity of every resource again, because it changed while nobody used them."""
        self._engine.tell(self._engine.state.recount, self._engine.now())

    async def drain(self) -> None:
        """Refuse new checkouts, serve those that wait, and return when the last lease has ended.

        A paused pool is resumed for it. The pool lends nothing afterwards: close it. Cancelling stops the waiting, not
        the draining. Do not await it while you hold a lease of this pool: it would wait for yours.
        """
        await self._engine.drain()

    async def close(self) -> None:
        """Close the pool and every resource; idempotent.

        New and queued checkouts get `PoolClosed`. Leases have ``close_grace`` to end; then they are revoked. Each
        resource is terminated under ``terminate_timeout``, all at the same time. A cancellation from outside cuts short
        the grace and is delivered when everything is closed. A lease of the task that closes ends at once, for that
        task could not end it while it waits here.
        """
        await self._engine.close()

    @property
    def stats(self) -> PoolStats:
        """A reading of state and books: O(1), from any thread, without disturbing the pool."""
        return self._engine.stats()

    @property
    def name(self) -> str:
        """The name given to `open_pool`."""
        return self._engine.name

    def __repr__(self) -> str:
        now = self.stats
        return f"<Pool {self.name!r}: size {now.size} of {now.max_size}, leased {now.leased}, waiting {now.waiting}>"


def open_pool(worker: PoolWorker[R], **options: Unpack[PoolOptions]) -> AbstractAsyncContextManager[Pool[R]]:
    """Open a pool for the block; leaving it closes the pool and every resource. The call itself checks the options.

    What the block raises comes out as it is, never in an exception group. Leaving the block is a checkpoint; see
    `Pool.close` for what it waits for.

    Args:
        worker: how to open, judge and close one resource.
        options: see `PoolOptions`.

    Raises:
        ValueError: an option has a value that is not allowed.
        TypeError: an option does not exist, or is of the wrong type.
        Exception: what the worker's ``start`` raised.
    """
    return _run_pool(worker, settings_from(options))


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def _run_pool(worker: PoolWorker[R], settings: Settings) -> AsyncGenerator[Pool[R]]:
    async with open_engine(worker, settings) as engine:
        yield Pool(engine)


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_engine(worker: PoolWorker[R], settings: Settings) -> AsyncGenerator[Engine[R]]:
    """Run an engine for the block."""
    check_type("worker", worker, PoolWorker)
    async with open_quiet_nursery() as nursery:
        engine = Engine(worker, settings, nursery, Quota())
        try:
            await engine.start()
            yield engine
        except BaseException:
            # It is the block's exception that comes out, whatever the closing meets with.
            with suppress(trio.Cancelled):
                await engine.close()
            raise
        await engine.close()


async def serve_pool(
    worker: PoolWorker[R],
    *,
    task_status: trio.TaskStatus[Pool[R]] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[PoolOptions],
) -> None:
    """Run a pool in a task of its own: ``pool = await nursery.start(serve_pool, worker)``.

    Returns when the pool was closed with `Pool.close`; cancelling it closes the pool, as leaving `open_pool` does.

    Raises:
        Exception: as `open_pool`.
    """
    async with open_engine(worker, settings_from(options)) as engine:
        task_status.started(Pool(engine))
        await engine.closed.wait()


def engine_of(pool: Pool[R]) -> Engine[R]:
    """Return what runs ``pool``; for `nimblepool.testing` only."""
    return pool._engine  # noqa: SLF001 - a friend  # pyright: ignore[reportPrivateUsage]


def _timeout(timeout: float | None) -> float:
    return check_optional_seconds("timeout", timeout)


def caller() -> str:
    """Return the place in the user's code from which a lease is acquired."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith("nimblepool."):
        frame = frame.f_back
    return "somewhere" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_name})"
