"""Leases of which observers hear, and leases whose body the pool can cancel."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Self, TypeVar, final

import trio
from trio.lowlevel import enable_ki_protection

from ._lease import Lease

if TYPE_CHECKING:
    from ._engine import Engine
    from ._verdict import Reason

R = TypeVar("R")


class ObservedLease(Lease[R]):
    """A lease that tells when it begins and ends; used in place of `Lease` when there are observers."""

    __slots__ = ("_asked_at",)

    def __init__(self, engine: Engine[R], request: object, timeout: float) -> None:
        super().__init__(engine, request, timeout)
        self._asked_at = inf

    @enable_ki_protection
    async def __aenter__(self) -> Self:
        self._asked_at = self._engine.now()
        return await super().__aenter__()

    def enter_now(self) -> None:
        self._asked_at = self._engine.now()
        super().enter_now()

    def _begin(self) -> None:
        super()._begin()
        self._engine.supervision.began(self, self.since - self._asked_at)

    def _end(self, error: BaseException | None) -> None:
        used = self.held_for
        super()._end(error)
        self._engine.supervision.ended(self, used, error)


@final
class SupervisedLease(ObservedLease[R]):
    """A lease with a cancel scope around its body.

    Used when ``max_hold``, ``close_grace`` or ``on_death="cancel"`` ask for it: the scope costs more than all the rest
    of a lease.
    """

    __slots__ = ("_scope",)

    def __init__(self, engine: Engine[R], request: object, timeout: float) -> None:
        super().__init__(engine, request, timeout)
        self._scope = trio.CancelScope()

    @enable_ki_protection
    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._scope.__enter__()
        return self

    def enter_now(self) -> None:
        super().enter_now()
        self._scope.__enter__()

    def leave(self, exc: BaseException | None) -> None:
        if self._fate is not None and exc is not None and _is_group(exc):
            exc.add_note(f"(besides, the pool has cancelled the body: {self._fate})")
        try:
            self._scope.__exit__(None if exc is None else type(exc), exc, None if exc is None else exc.__traceback__)
        finally:
            super().leave(exc)
        if self._scope.cancelled_caught:
            assert self._fate is not None, "bug: a body was cancelled, and nobody knows why"
            raise self._fate

    def doom(self, fate: Exception, reason: Reason) -> None:
        """Retire the resource and cancel the body; ``fate`` comes out of it, unless it ends in another way."""
        if self._fate is None:
            self._fate = fate
            self._engine.retire(self._held_slot(), reason)
            self._scope.cancel()


def _is_group(error: BaseException) -> bool:
    return isinstance(error, BaseExceptionGroup)
