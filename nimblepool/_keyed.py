"""One pool for each key: an origin, a tenant, a shard."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Concatenate, Generic, ParamSpec, Protocol, TypeVar, final

import trio

from ._check import check_count, check_optional_seconds, check_type
from ._engine import Engine
from ._errors import PoolClosed
from ._nursery import open_quiet_nursery
from ._options import PoolOptions, settings_from
from ._pool import DEFAULT, Default, Pool
from ._quota import Budget, Quota, Share
from ._stats import PoolStats
from ._worker import PoolWorker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from types import TracebackType
    from typing import Unpack

    from ._lease import Lease, PromptCheckout
    from ._options import Settings

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")
T = TypeVar("T")
P = ParamSpec("P")


@final
class _Entry(Generic[R]):
    """One key's pool.

    Invariant: used_at is not after the last time at which it was used
    """

    __slots__ = ("engine", "pool", "used_at")

    def __init__(self, engine: Engine[R], used_at: float) -> None:
        self.engine = engine
        self.pool = Pool(engine)
        self.used_at = used_at

    def stats(self) -> PoolStats:
        return self.engine.stats()

    def last_use(self, now: float) -> float:
        """Return when a lease of this key last began or ended; ``now`` while it is in use."""
        if self.engine.in_use:
            return now
        return max((slot.idle_since for slot in self.engine.state.fleet.slots if slot.uses), default=self.used_at)


@final
class KeyedCheckout(Generic[K, R]):
    """A checkout under a key; the key's pool is looked up when the block is entered."""

    __slots__ = ("_key", "_keyed", "_lease", "_request", "_timeout")

    def __init__(self, keyed: KeyedPool[K, R], key: K, request: object, timeout: float | Default | None) -> None:
        self._keyed = keyed
        self._key = key
        self._request = request
        self._timeout: float | Default | None = timeout
        self._lease: Lease[R] | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Lease[R]:
        if self._lease is not None:
            raise RuntimeError("a checkout can be entered only once; call checkout() again")
        # Between the look-up and the lease's own first step nothing can run: the pool cannot leave in between.
        await trio.lowlevel.checkpoint_if_cancelled()
        lease = self._keyed.pool_of(self._key).checkout(self._request, timeout=self._timeout)
        self._lease = lease
        return await lease.__aenter__()

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._lease is not None, "bug: a checkout is left that was never entered"
        self._lease.leave(exc)


class _Readable(Protocol):
    def stats(self) -> PoolStats: ...


@final
class KeyedStats(Mapping[K, PoolStats]):
    """The figures of each key that has a pool at present, from any thread."""

    def __init__(self, entries: Mapping[K, _Readable]) -> None:
        self._entries = entries

    def __getitem__(self, key: K) -> PoolStats:
        return self._entries[key].stats()

    def __iter__(self) -> Iterator[K]:
        return iter(list(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def snapshot(self) -> dict[K, PoolStats]:
        """Return all figures by key; while a key may leave, this is safer than to iterate."""
        return {key: entry.stats() for key, entry in list(self._entries.items())}


@final
class KeyedPool(Generic[K, R]):
    """Lends resources by key. Made by `open_keyed_pool` only.

    Invariants:
        _entries lists the pools that clients may get, the least recently used first; none leaves once _closing
        _leaving lists the engines that were dismissed, each of which a task is closing
    """

    def __init__(
        self,
        make_worker: Callable[[K], PoolWorker[R]],
        settings: Settings,
        nursery: trio.Nursery,
        *,
        max_total: int | None,
        key_idle: float,
    ) -> None:
        self._make_worker = make_worker
        self._settings = settings
        self._nursery = nursery
        self._budget = None if max_total is None else Budget(max_total)
        self._key_idle = key_idle
        self._entries: OrderedDict[K, _Entry[R]] = OrderedDict()
        self._leaving: set[Engine[R]] = set()
        self._now = trio.lowlevel.current_clock().current_time
        self._keeper = trio.CancelScope(shield=True)
        self._nap = trio.CancelScope()
        self._closing = False
        self._closed = trio.Event()

    def checkout(
        self, key: K, request: object = None, *, timeout: float | Default | None = DEFAULT
    ) -> KeyedCheckout[K, R]:
        """Lend a resource of ``key`` to the block: ``async with keyed.checkout(key) as lease``; see `Pool.checkout`.

        The key's pool is made when it is first needed.

        Raises:
            PoolError: as `Pool.checkout`.
            Exception: what ``make_worker`` raised.
        """
        return KeyedCheckout(self, key, request, timeout)

    def checkout_nowait(self, key: K, request: object = None) -> PromptCheckout[R]:
        """Lend an idle resource of ``key`` to the block; makes the key's pool if need be; see `Pool.checkout_nowait`.

        Raises:
            PoolError: as `Pool.checkout_nowait`.
            Exception: what ``make_worker`` raised.
        """
        return self.pool_of(key).checkout_nowait(request)

    async def acquire(
        self,
        key: K,
        request: object = None,
        *,
        timeout: float | Default | None = DEFAULT,
        owner: trio.lowlevel.Task | Default | None = DEFAULT,
    ) -> Lease[R]:
        """Lend a resource of ``key`` until ``lease.release()``; see `Pool.acquire`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        return await self.pool_of(key).acquire(request, timeout=timeout, owner=owner)

    async def run(
        self, key: K, fn: Callable[Concatenate[R, P], Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return ``await fn(resource, *args, **kwargs)`` with a resource of ``key``; see `Pool.run`."""
        async with self.checkout(key) as lease:
            return await fn(lease.resource, *args, **kwargs)

    @property
    def stats(self) -> KeyedStats[K]:
        """The figures by key: ``keyed.stats[key]`` is a `PoolStats`; a key without a pool is a ``KeyError``."""
        return KeyedStats(self._entries)

    @property
    def size(self) -> int:
        """How many resources are open or opening under all keys, those of keys that are leaving included."""
        engines = [entry.engine for entry in list(self._entries.values())]
        return sum(len(engine.state.fleet.slots) for engine in [*engines, *self._leaving])

    def pools(self) -> list[Pool[R]]:
        """Return the pools that there are at present."""
        return [entry.pool for entry in list(self._entries.values())]

    def __repr__(self) -> str:
        return f"<KeyedPool {self._settings.name!r}: {len(self._entries)} keys, {self.size} resources>"

    def pool_of(self, key: K) -> Pool[R]:
        """Return the pool of ``key``, made if need be.

        It is for use at once: it leaves when the key has not been used for ``key_idle``, and its books with it.

        Raises:
            PoolClosed: the keyed pool is closing or closed.
            Exception: what ``make_worker`` raised.
        """
        entry = self._entries.get(key)
        if entry is not None and entry.engine.is_closing and not self._closing:  # somebody closed the key's own pool
            self._let_go(key)
            entry = None
        if entry is None:
            entry = self._add(key)
        elif self._key_idle < inf:
            entry.used_at = self._now()
            self._entries.move_to_end(key)
        return entry.pool

    @trio.lowlevel.enable_ki_protection
    async def close(self) -> None:
        """Close the pools of all keys, at the same time; idempotent. See `Pool.close`."""
        if self._closing:
            await self._closed.wait()
            return
        engines = self._begin_closing()
        try:
            with trio.move_on_after(max((engine.grace for engine in engines), default=0.0)):
                for engine in engines:
                    await engine.until_unused()
        finally:
            self._nursery.start_soon(self._finish_closing, engines)
            with trio.CancelScope(shield=True):
                await self._closed.wait()

    @trio.lowlevel.enable_ki_protection
    def _begin_closing(self) -> list[Engine[R]]:
        """Lend to nobody; return the engines that are to be finished here, and not by who closes them already."""
        self._closing = True
        self._keeper.cancel()
        engines = [entry.engine for entry in self._entries.values()]
        self._leaving.update(engine for engine in engines if engine.is_closing)
        return [engine for engine in engines if engine.begin_closing()]

    @trio.lowlevel.enable_ki_protection
    async def _finish_closing(self, engines: list[Engine[R]]) -> None:
        """See `Engine.start_to_finish`."""
        with trio.CancelScope(shield=True):
            for engine in engines:
                engine.start_to_finish()
            for engine in [*engines, *self._leaving]:
                await engine.closed.wait()
            self._closed.set()

    @trio.lowlevel.enable_ki_protection
    def _add(self, key: K) -> _Entry[R]:
        if self._closing:
            raise PoolClosed(f"keyed pool {self._settings.name!r}: it is closing or closed, and lends nothing any more")
        settings = replace(self._settings, name=f"{self._settings.name}[{key!r}]")
        share = Quota() if self._budget is None else Share(self._budget)
        worker = self._make_worker(key)
        check_type("what make_worker returns", worker, PoolWorker)
        engine = Engine(worker, settings, self._nursery, share)
        if isinstance(share, Share):
            share.pool = engine
        now = self._now()
        engine.run()
        entry = self._entries[key] = _Entry(engine, now)
        self._nap.deadline = min(self._nap.deadline, now + self._key_idle)
        return entry

    async def keep(self) -> None:
        """Be the keeper of the keys: let those leave that have not been used for ``key_idle``."""
        with self._keeper:
            while True:
                with trio.CancelScope(deadline=self._next_due()) as self._nap:
                    await trio.sleep_forever()
                self._dismiss_unused(self._now())

    def _next_due(self) -> float:
        return next((entry.used_at for entry in self._entries.values()), inf) + self._key_idle

    def _dismiss_unused(self, now: float) -> None:
        while self._next_due() <= now:
            key, entry = self._entries.popitem(last=False)
            entry.used_at = max(entry.used_at, entry.last_use(now))
            self._entries[key] = entry
            if entry.used_at + self._key_idle <= now:
                self._let_go(key)

    def _let_go(self, key: K) -> None:
        engine = self._entries.pop(key).engine
        self._leaving.add(engine)
        self._nursery.start_soon(self._dismiss, engine)

    async def _dismiss(self, engine: Engine[R]) -> None:
        await engine.close()
        self._leaving.discard(engine)


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_keyed_pool(
    make_worker: Callable[[K], PoolWorker[R]],
    *,
    max_total: int | None = None,
    key_idle: float | None = None,
    **options: Unpack[PoolOptions],
) -> AsyncGenerator[KeyedPool[K, R]]:
    """Open a pool for each key that is asked for; leaving the block closes them all.

    Args:
        make_worker: returns the worker for a key; annotate its parameter, for type checkers. It is called when the key
            is first used, and again after the key's pool left. The worker's ``start`` runs before the first ``init``,
            and a failure of it counts as one of ``init``.
        max_total: at most so many resources under all keys together; ``None`` for no limit. A key that needs room
            takes it from the resource idle longest under another key; keys whose clients wait share evenly.
        key_idle: seconds after which the pool of an unused key is closed; ``None`` for never.
        options: see `PoolOptions`; they hold for each key's pool.

    Raises:
        ValueError: an option has a value that is not allowed.
        TypeError: an option does not exist, or is of the wrong type.
    """
    settings = settings_from(options)
    if max_total is not None:
        check_count("max_total", max_total, least=max(1, settings.min_size))
    idle = check_optional_seconds("key_idle", key_idle, zero=False)
    async with open_quiet_nursery() as nursery:
        keyed = KeyedPool(make_worker, settings, nursery, max_total=max_total, key_idle=idle)
        nursery.start_soon(keyed.keep, name=f"{settings.name}: keeper of the keys")
        try:
            yield keyed
        except BaseException:
            with suppress(trio.Cancelled):
                await keyed.close()
            raise
        await keyed.close()
