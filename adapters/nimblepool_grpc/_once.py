"""What is done once, by whoever first needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, final

import trio

from ._errors import CANCELLED_HERE, RpcCancelled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

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

    # Of these a call that goes well sets three only, and has no use for an __init__.
    has_begun = False
    has_value = False
    error: BaseException | None = None
    _value: T
    _traceback: TracebackType | None = None
    """The error's own, to which each `get` adds its frames anew."""
    _scope: trio.CancelScope | None = None
    _others: trio.Event | None = None

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
            raise self.error.with_traceback(self._traceback)
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
        self._traceback = self.error.__traceback__
        if self._scope is not None:
            self._scope.cancel()
        if self._others is not None:
            self._others.set()
