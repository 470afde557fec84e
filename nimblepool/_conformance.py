"""A conformance run: whether a worker keeps its side of the contract.

It runs in two parts, both within one pool, so that the worker's ``start`` and ``stop`` are called once, as they should
be. In the first part the callbacks are called directly, beside the pool: there an answer or an error can be seen that a
pool would only log. In the second part the pool calls them, through a `_Recorder`, in the situations that a worker must
survive: bodies that fail or are cancelled, clients that give up, resets, and pings that fail.
"""

from __future__ import annotations

import gc
import warnings
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from inspect import isawaitable, iscoroutine
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Final, Generic, TypeVar, final

import trio
from trio.testing import wait_all_tasks_blocked

from ._audit import audit
from ._check import check_count
from ._errors import PoolError
from ._options import Settings
from ._pool import engine_of, open_pool
from ._sweep import sweep
from ._verdict import Reason, Skip, Stage, Verdict
from ._worker import PoolWorker, overrides

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

    from ._pool import Pool

R = TypeVar("R")
T = TypeVar("T")

_DEFAULTS: Final = Settings()
_BLOCKING: Final = 0.1
"""Seconds that a deciding callback may take at its fastest; meanwhile no other task of the program runs."""
_WATCHED: Final = 1.0
"""Seconds after which a ``watch`` lives, if something else in the program never comes to rest."""
_CUSHION: Final = 0.01
"""Seconds of rest in which the answer to a ``watch`` that fails at once arrives."""
_MOMENT: Final = 0.001
"""Seconds: long enough to be pinged after it, or to have queued."""
_PATIENCE: Final = 2 * (_DEFAULTS.init_timeout + _DEFAULTS.ping_timeout + _DEFAULTS.reset_timeout)
"""Seconds in which a checkout succeeds if all callbacks meet their deadlines."""


@final
class BrokenContractError(AssertionError):
    """A worker broke a rule; told apart from the assertions of the worker's own."""


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
    recorder = _Recorder(worker)
    alone = _Alone(worker, request, cycles)
    try:
        async with open_pool(recorder, max_size=2, ping_after=_MOMENT, name="check_worker") as pool:
            await alone.check()
            await _InPool(recorder, pool, request).check(cycles)
    except PoolError as error:
        raise _broken(worker, "init", f"does not serve a pool: {error}", "see the error's cause") from error
    recorder.check()
    _check_books(pool)


def _broken(worker: PoolWorker[R], callback: str, rule: str, remedy: str) -> BrokenContractError:
    return BrokenContractError(f"{type(worker).__name__}.{callback} {rule}; {remedy}")


def _check_books(pool: Pool[R]) -> None:
    """Assert that the pool, whatever the worker did, has lost nothing."""
    assert pool.stats.balanced, f"the books do not balance: {pool.stats}"
    audit(engine_of(pool).state, engine_of(pool).now())


# -- the callbacks alone


@final
class _Alone(Generic[R]):
    """Calls the callbacks as a pool would, and looks at what they answer."""

    def __init__(self, worker: PoolWorker[R], request: object, cycles: int) -> None:
        self._worker = worker
        self._request = request
        self._cycles = cycles
        self._fastest: dict[str, float] = {}

    async def check(self) -> None:
        await self._check_init()
        await self._check_cancelled_init()
        for _ in range(self._cycles):
            async with self._resource() as resource:
                self._check_lending(resource)
                await self._check_error(resource)
                self._check_capacity(resource)
                self._check_message(resource)
        self._check_enqueue()
        self._check_blocking()
        await self._check_upkeep()
        await self._check_watch()

    # Opening and closing

    async def _open(self) -> R:
        resource = await self._within("init", _DEFAULTS.init_timeout, self._worker.init, "let it open one resource")
        if resource is None:
            raise self._broken("init", "returned None", "return what it opened")
        return resource

    async def _close(self, resource: R, reason: Reason) -> None:
        with trio.CancelScope(shield=True):
            await self._within(
                "terminate",
                _DEFAULTS.terminate_timeout,
                lambda: self._worker.terminate(resource, reason),
                f"it must close any resource that init returned, also one that is broken (reason: {reason})",
            )

    @asynccontextmanager
    async def _resource(self, reason: Reason = Reason.CLOSED) -> AsyncGenerator[R]:
        resource = await self._open()
        try:
            yield resource
        finally:
            await self._close(resource, reason)

    async def _check_init(self) -> None:
        async with self._resource() as one, self._resource() as another:
            if one is another:
                raise self._broken(
                    "init", "returned the same object twice", "two clients would share it: return a new one every time"
                )

    async def _check_cancelled_init(self) -> None:
        """Cancel ``init`` wherever it waits. What it returns all the same is closed; what it loses may be seen."""
        opened: list[R] = []

        async def scenario() -> None:
            try:
                opened.append(await self._worker.init())
            except Exception as error:
                raise self._broken(
                    "init",
                    f"raised {error!r} when it was cancelled",
                    "let trio.Cancelled pass, and clean up without raising",
                ) from error

        async def close_all() -> None:
            while opened:
                await self._close(opened.pop(), Reason.CLOSED)

        gc.collect()
        with _leaks() as leaks:
            await sweep(scenario, close_all)
            gc.collect()
        if leaks:
            raise self._broken(
                "init",
                f"left something open when it was cancelled: {leaks[0]}",
                "close what it has opened so far when it does not return it (try/except BaseException)",
            )

    # Deciding

    def _check_lending(self, resource: R) -> None:
        verdict = self._judge("checkout", lambda: self._worker.checkout(resource, self._request))
        if verdict in {Verdict.REMOVE, Verdict.REFRESH}:
            raise self._broken(
                "checkout", f"returned {verdict} for a fresh resource", "no client would ever be served: return OK"
            )
        self._judge("checkin", lambda: self._worker.checkin(resource, None))

    async def _check_error(self, resource: R) -> None:
        """Hand ``checkin`` the errors with which a body may end."""
        self._judge("checkin", lambda: self._worker.checkin(resource, RuntimeError("of a body")))
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as cancelled:
                error: BaseException = cancelled
                self._judge("checkin", lambda: self._worker.checkin(resource, error))
                raise

    def _check_capacity(self, resource: R) -> None:
        capacity = self._decide("capacity", lambda: self._worker.capacity(resource))
        try:
            check_count("capacity", capacity, least=0)
        except (TypeError, ValueError) as error:
            remedy = "return how many leases it carries, an int >= 0"
            raise self._broken("capacity", f"returned {capacity!r}", remedy) from error
        if capacity == 0:
            raise self._broken(
                "capacity", "returned 0 for a fresh resource", "no client would be served: return 1 or more"
            )

    def _check_message(self, resource: R) -> None:
        """Broadcast a message of which the worker knows nothing: it may raise, but not answer nonsense."""
        try:
            verdict = self._timed("message", lambda: self._worker.message(resource, None))
        except BrokenContractError:
            raise
        except Exception:  # noqa: BLE001 - what messages there are is the worker's affair
            return
        self._check_verdict("message", verdict)

    def _check_enqueue(self) -> None:
        for _ in range(self._cycles):
            request = self._decide("enqueue", lambda: self._worker.enqueue(self._request))
            if request is None and self._request is not None:
                raise self._broken("enqueue", "returned None", "return the request to queue")

    def _check_blocking(self) -> None:
        for callback, fastest in self._fastest.items():
            if fastest > _BLOCKING:
                raise self._broken(
                    callback,
                    f"blocks: it took {fastest:.2g} s at its fastest, in which no other task can run",
                    "move what waits into ping, reset or watch",
                )

    def _judge(self, callback: str, call: Callable[[], object]) -> Verdict:
        return self._check_verdict(callback, self._decide(callback, call))

    def _check_verdict(self, callback: str, verdict: object) -> Verdict:
        if isinstance(verdict, Verdict):
            return verdict
        raise self._broken(callback, f"returned {verdict!r}", "return a nimblepool.Verdict")

    def _decide(self, callback: str, call: Callable[[], T]) -> T:
        """Return what ``call`` returns."""
        try:
            return self._timed(callback, call)
        except BrokenContractError:
            raise
        except Skip as skip:
            raise self._refused(callback, skip.error) from skip
        except Exception as error:
            if callback == "enqueue":
                raise self._refused(callback, error) from error
            raise self._broken(
                callback, f"raised {error!r}", "that costs a resource: catch it, and return an answer"
            ) from error

    def _refused(self, callback: str, error: BaseException) -> BrokenContractError:
        return self._broken(
            callback,
            f"refused the request {self._request!r} with {error!r}",
            "pass one that it accepts: check_worker(worker, request=...)",
        )

    def _timed(self, callback: str, call: Callable[[], T]) -> T:
        """Return what ``call`` returns, and note how long it takes at its fastest: a busy machine slows one down."""
        began = perf_counter()
        answer = call()
        self._fastest[callback] = min(self._fastest.get(callback, inf), perf_counter() - began)
        if isawaitable(answer):
            if iscoroutine(answer):
                answer.close()
            raise self._broken(callback, "returned an awaitable", "write it as a plain function, 'def'")
        return answer

    # Waiting

    async def _check_upkeep(self) -> None:
        """Ping and reset a fresh resource; then cut both short, which must leave something that can be closed."""
        worker = self._worker
        remedy = "it must succeed on a fresh resource"
        async with self._resource() as resource:
            await self._within("ping", _DEFAULTS.ping_timeout, lambda: worker.ping(resource), remedy)
            await self._within("reset", _DEFAULTS.reset_timeout, lambda: worker.reset(resource), remedy)
        for reason, callback in ((Reason.PING, worker.ping), (Reason.RESET, worker.reset)):
            async with self._resource(reason) as resource:
                await _cut_short(callback, resource)

    async def _check_watch(self) -> None:
        if not overrides(self._worker, "watch"):
            return
        async with self._resource() as resource:
            watch = _Watch()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch.run, self._worker, resource)
                with trio.move_on_after(_WATCHED):
                    await wait_all_tasks_blocked(_CUSHION)
                lived = not watch.ended.is_set()
                watch.scope.cancel()
                with trio.move_on_after(_DEFAULTS.terminate_timeout):
                    await watch.ended.wait()
                obeyed = watch.ended.is_set()
        if not lived:
            how = "returned" if watch.error is None else f"raised {watch.error!r}"
            raise self._broken("watch", f"{how} at once", "that says the resource is dead: live as long as it does")
        if not obeyed:
            timeout = _DEFAULTS.terminate_timeout
            raise self._broken(
                "watch", f"did not end within {timeout:g} s when it was cancelled", "let trio.Cancelled pass"
            )

    async def _within(self, callback: str, timeout: float, call: Callable[[], Awaitable[T]], remedy: str) -> T:
        """Return what the asynchronous ``call`` returns, if it does so before its deadline."""
        try:
            with trio.move_on_after(timeout):
                awaitable: object = call()
                if not isawaitable(awaitable):
                    raise self._broken(callback, "is a plain function", "write it as 'async def'")
                answer: T = await awaitable
                return answer
        except BrokenContractError:
            raise
        except Exception as error:
            raise self._broken(callback, f"raised {error!r}", remedy) from error
        raise self._broken(callback, f"took longer than {timeout:g} s, its default deadline", remedy)

    def _broken(self, callback: str, rule: str, remedy: str) -> BrokenContractError:
        return _broken(self._worker, callback, rule, remedy)


@final
class _Watch:
    """A running ``watch``."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self.error: Exception | None = None

    async def run(self, worker: PoolWorker[R], resource: R) -> None:
        try:
            with self.scope:
                await worker.watch(resource)
        except Exception as error:  # noqa: BLE001 - raising is one way to say that the resource is dead
            self.error = error
        finally:
            self.ended.set()


async def _cut_short(callback: Callable[[R], Awaitable[None]], resource: R) -> None:
    """Cancel ``callback`` where it first waits, as its deadline might."""
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await callback(resource)
        except Exception:  # noqa: BLE001 - the pool takes it for dead either way
            return


@contextmanager
def _leaks() -> Generator[list[str]]:
    """Collect what is said of files, sockets and processes that nobody closed."""
    leaks: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        yield leaks
    for warning in caught:
        if issubclass(warning.category, ResourceWarning):
            leaks.append(str(warning.message))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


# -- the callbacks in a pool


@final
class _InPool(Generic[R]):
    """Takes a pool through what its clients do."""

    def __init__(self, recorder: _Recorder[R], pool: Pool[R], request: object) -> None:
        self._recorder = recorder
        self._pool = pool
        self._request = request

    async def check(self, cycles: int) -> None:
        for _ in range(cycles):
            await self._lend_two()
            await self._fail_a_body()
            await self._cancel_a_body()
            await self._cancel_in_the_queue()
            await self._reset_after_use()
            await self._fail_a_ping()
            _check_books(self._pool)
        await self._lend_two()

    @asynccontextmanager
    async def _lease(self) -> AsyncGenerator[R]:
        async with self._pool.checkout(self._request, timeout=_PATIENCE) as lease:
            yield lease.resource

    async def _lend_two(self) -> None:
        """Prove that all the pool has can be lent."""
        async with self._lease() as one, self._lease() as another:
            if one is another and not self._recorder.is_shared:
                raise self._recorder.broken("init", "returned what is in use", "return a new resource every time")

    async def _fail_a_body(self) -> None:
        error = RuntimeError("of a body")
        try:
            async with self._lease():
                raise error
        except RuntimeError as raised:
            if raised is not error:
                raise

    async def _cancel_a_body(self) -> None:
        with trio.CancelScope() as scope:
            async with self._lease():
                scope.cancel()
                await trio.lowlevel.checkpoint()

    async def _cancel_in_the_queue(self) -> None:
        self._pool.pause()
        with trio.move_on_after(_MOMENT):
            async with self._lease():
                pass
        self._pool.resume()

    async def _reset_after_use(self) -> None:
        self._recorder.asks_for_reset = True
        async with self._lease():
            pass
        await self._lend_two()

    async def _fail_a_ping(self) -> None:
        await trio.sleep(2 * _MOMENT)
        self._recorder.fails_ping = True
        async with self._lease():
            pass
        self._recorder.fails_ping = False


@final
class _Recorder(PoolWorker[R]):
    """Passes every call on to the worker, and remembers what the pool would only log."""

    def __init__(self, worker: PoolWorker[R]) -> None:
        self._worker = worker
        self._faults: list[BrokenContractError] = []
        self._opened: list[R] = []
        self._terminated: Counter[int] = Counter()
        """How often each was terminated, by its ``id``: ``_opened`` sees that there is no other with the same."""
        self.is_shared = overrides(worker, "capacity")
        self.asks_for_reset = False
        self.fails_ping = False
        # The pool looks up once which callbacks a worker overrides; this one overrides what its worker does.
        if not self.is_shared:
            self.capacity = super().capacity  # type: ignore[method-assign]
        if not overrides(worker, "watch"):
            self.watch = super().watch  # type: ignore[method-assign]

    def check(self) -> None:
        """Raise the first fault, if there was one."""
        if self._faults:
            raise self._faults[0]
        for resource in self._opened:
            times = self._terminated[id(resource)]
            assert times == 1, f"bug: {resource!r} was terminated {times} times"

    def broken(self, callback: str, rule: str, remedy: str) -> BrokenContractError:
        return _broken(self._worker, callback, rule, remedy)

    async def init(self) -> R:
        resource = await self._worker.init()
        self._opened.append(resource)
        return resource

    async def terminate(self, resource: R, reason: Reason) -> None:
        self._terminated[id(resource)] += 1
        with self._noting("terminate", f"it must close a resource that was used (reason: {reason})"):
            await self._worker.terminate(resource, reason)

    def checkout(self, resource: R, request: object) -> Verdict:
        return self._worker.checkout(resource, request)

    def checkin(self, resource: R, error: BaseException | None) -> Verdict:
        with self._noting("checkin", "return a nimblepool.Verdict"):
            verdict = self._worker.checkin(resource, error)
        if self.asks_for_reset and verdict is Verdict.OK:
            self.asks_for_reset = False
            return Verdict.RESET
        return verdict

    async def reset(self, resource: R) -> None:
        with self._noting("reset", "it must succeed after a use that ended well"):
            await self._worker.reset(resource)

    async def ping(self, resource: R) -> None:
        with self._noting("ping", "it must succeed on a resource that is not dead"):
            await self._worker.ping(resource)
        if self.fails_ping:
            self.fails_ping = False
            raise ConnectionError("check_worker lets this ping fail")

    async def watch(self, resource: R) -> None:
        with self._noting("watch", "live as long as the resource does"):
            await self._worker.watch(resource)
        self._faults.append(
            self.broken("watch", "returned while the resource was in use", "live as long as the resource does")
        )

    def capacity(self, resource: R) -> int:
        return self._worker.capacity(resource)

    def message(self, resource: R, message: object) -> Verdict:
        return self._worker.message(resource, message)

    def enqueue(self, request: object) -> object:
        return self._worker.enqueue(request)

    def cancelled(self, stage: Stage, request: object) -> None:
        with self._noting("cancelled", "it hears of a client that gave up, and has nothing to refuse"):
            self._worker.cancelled(stage, request)

    async def start(self) -> None:
        await self._worker.start()

    async def stop(self) -> None:
        with self._noting("stop", "it must succeed after the last terminate"):
            await self._worker.stop()

    @contextmanager
    def _noting(self, callback: str, remedy: str) -> Generator[None]:
        """Note what the block raises: the pool is going to log it."""
        try:
            yield
        except Exception as error:
            fault = self.broken(callback, f"raised {error!r} in a pool", remedy)
            fault.__cause__ = error
            self._faults.append(fault)
            raise
        except trio.Cancelled:
            if callback in {"terminate", "stop"}:  # the pool cancels them at their deadline only
                timeout = _DEFAULTS.terminate_timeout
                self._faults.append(self.broken(callback, f"took longer than {timeout:g} s in a pool", remedy))
            raise
