"""Errors that say what was the matter."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from ._errors import CheckoutTimeout, NoneIdle, PoolClosed, PoolError, PoolOverloaded, PoolUnavailable
from ._waiter import Refusal

if TYPE_CHECKING:
    from ._engine import Engine
    from ._waiter import Waiter

R = TypeVar("R")

_HOLDERS_NAMED = 8


def explain(engine: Engine[R], waiter: Waiter[R], refusal: Refusal) -> PoolError:
    """Return the exception for a client that was refused."""
    match refusal:
        case Refusal.TIMED_OUT:
            return _timed_out(engine, waiter.timeout)
        case Refusal.NOTHING_IDLE:
            return NoneIdle(f"{_head(engine)} nothing is idle; {describe(engine)}")
        case Refusal.FULL:
            limit = engine.settings.max_waiting
            return PoolOverloaded(
                f"{_head(engine)} max_waiting ({limit}) is reached: come back later; {describe(engine)}"
            )
        case Refusal.SHED:
            waited = engine.now() - waiter.since
            return PoolOverloaded(f"{_head(engine)} shed after waiting {waited:.3g} s; {describe(engine)}")
        case Refusal.CLOSED:
            return closed(engine)
        case Refusal.UNAVAILABLE:
            return unavailable(engine, engine.state.supply.last_error)


def closed(engine: Engine[R]) -> PoolClosed:
    return PoolClosed(f"{_head(engine)} it is {engine.status}, and lends nothing any more; open another")


def describe(engine: Engine[R]) -> str:
    """Return the pool's counts, and who holds the leases."""
    stats = engine.stats()
    counts = (
        f"size {stats.size} of {stats.max_size} (idle {stats.idle}, leased {stats.leased}, opening {stats.opening}, "
        f"checking {stats.checking}), closing {stats.closing}, waiting {stats.waiting}"
    )
    failures = engine.state.supply.failures
    if failures:
        counts += f", {_in_a_row(failures)}"
    if stats.status == "paused":
        counts += "; it is paused: call resume()"
    return counts + engine.quota.describe() + _holders(engine, stats.leases)


def _in_a_row(failures: int) -> str:
    return f"{failures} failure{'s' if failures != 1 else ''} to open in a row"


def _holders(engine: Engine[R], leases: int) -> str:
    named = [
        f"{lease.holder} (for {lease.held_for:.3g} s)" for lease in islice(engine.supervision.holders(), _HOLDERS_NAMED)
    ]
    if not named:
        return ""
    more = f" and {leases - len(named)} more" if leases > len(named) else ""
    return f"; held by {', '.join(named)}{more}"


def _timed_out(engine: Engine[R], timeout: float) -> CheckoutTimeout:
    error = CheckoutTimeout(f"{_head(engine)} no resource within {timeout:g} s; {describe(engine)}")
    error.__cause__ = engine.state.supply.last_error
    return error


def unavailable(engine: Engine[R], cause: BaseException | None) -> PoolUnavailable:
    supply = engine.state.supply
    retry_after = max(0.0, supply.retry_at - engine.now())
    error = PoolUnavailable(
        f"{_head(engine)} no resource can be opened ({_in_a_row(supply.failures)}, the last one: {cause!r}); "
        f"next attempt in {retry_after:.3g} s",
        retry_after=retry_after,
    )
    error.__cause__ = cause
    return error


def _head(engine: Engine[R]) -> str:
    return f"pool {engine.name!r}:"
