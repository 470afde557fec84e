"""What is done once, by whoever first needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, final

import trio

from ._errors import CANCELLED_HERE, RpcCancelled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


@final
class Once(Generic[T]):
    """Something that whoever first needs it does, in its own task, while others who need it wait.

    It is done through `get`; or else whoever finds that it has not begun sets has_begun, and then calls `settle` or
    `fail` without fail.

    Invariants:
        has_begun if has_ended
        has_ended if and only if there is a value, or an error
        an error is never replaced, and outlives a value
        _scope is not None only if it has begun
    """

    __slots__ = ("_others", "_scope", "_value", "error", "has_begun", "has_value")

    def __init__(self) -> None:
        self.has_begun = False
        self._scope: trio.CancelScope | None = None
        self._others: trio.Event | None = None
        self._value: T
        self.has_value = False
        self.error: BaseException | None = None

    @property
    def has_ended(self) -> bool:
        return self.has_value or self.error is not None

    async def get(self, do: Callable[[], Awaitable[T]]) -> T:
        """Return what ``do`` returned, or raise what it raised; do it now if nobody has begun.

        If the task that does it is cancelled, that is an `RpcCancelled` for the others.
        """
        if not self.has_begun:
            await self._run(do)
        elif not self.has_ended:
            if self._others is None:
                self._others = trio.Event()
            await self._others.wait()
        if self.error is not None:
            raise self.error
        return self._value

    async def _run(self, do: Callable[[], Awaitable[T]]) -> None:
        self.has_begun = True
        try:
            with trio.CancelScope() as self._scope:
                self.settle(await do())
        except BaseException as error:
            self.fail(error)
            raise

    def settle(self, value: T) -> None:
        """Let it have ended with ``value``."""
        self._value = value
        self.has_value = True
        if self._others is not None:
            self._others.set()

    def fail(self, error: BaseException) -> None:
        """Let it have failed with ``error``, unless it has ended; whoever is at it is cancelled."""
        if self.has_ended:
            return
        self.has_begun = True
        self.error = error if isinstance(error, Exception) else RpcCancelled(CANCELLED_HERE)
        if self._scope is not None:
            self._scope.cancel()
        if self._others is not None:
            self._others.set()
