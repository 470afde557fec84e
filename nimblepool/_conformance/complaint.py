"""What is said of a worker that broke a rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, final

if TYPE_CHECKING:
    from nimblepool._worker import PoolWorker

R = TypeVar("R")


@final
class BrokenContractError(AssertionError):
    """A worker broke a rule; told apart from the assertions of the worker's own."""


def broken(worker: PoolWorker[R], callback: str, rule: str, remedy: str) -> BrokenContractError:
    """Return the complaint that ``callback`` broke ``rule``, with the ``remedy``."""
    return BrokenContractError(f"{type(worker).__name__}.{callback} {rule}; {remedy}")
