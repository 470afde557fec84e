"""Statements that a cancellation must not break off: COMMIT, ROLLBACK, and what else brings a connection in order."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Generic, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

T = TypeVar("T")

is_settling: ContextVar[bool] = ContextVar("is_settling", default=False)
"""Whether this task's waits on a connection go on when they are cancelled, for as long as its `cancel_timeout`."""


@contextmanager
def settling() -> Generator[None]:
    """Let this task's statements end although it is cancelled.

    A shield would not do: its deadline would count from the statement's beginning and break off a slow COMMIT that
    nobody has cancelled. Here the deadline counts from the cancellation.
    """
    token = is_settling.set(True)
    try:
        yield
    finally:
        is_settling.reset(token)


@final
class Settled(Generic[T]):
    """An asynchronous context manager that is entered and left by `settling` statements; its body is as usual."""

    def __init__(self, inner: AbstractAsyncContextManager[T, bool | None]) -> None:
        self._inner = inner

    async def __aenter__(self) -> T:
        with settling():
            return await self._inner.__aenter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        with settling():
            return await self._inner.__aexit__(exc_type, exc, traceback)
