"""A request that asks for a connection."""

from __future__ import annotations

import inspect
from math import inf
from typing import TYPE_CHECKING, Any, final

import trio

if TYPE_CHECKING:
    from collections.abc import Mapping

ORPHANED = 30.0
"""Seconds that an attempt to connect may go on when the request it was begun for has gone, and set no limit to it."""

STEPS = 5
"""Of the event loop, in which an attempt to connect begins once it has been decided on."""


@final
class Escaped(Exception):  # noqa: N818 - it is only the carrier of its cause
    """A tracer raised its cause, which is no `Exception`: in the pool's task it would end the pools of all origins."""


@final
class Ticket:
    """What the pool has to know of a request: how long it waits for what, and whom to tell of it.

    The pool's time-out runs while the request waits for its turn; once a connection is being opened for it, that one's
    own time-out takes over.

    Invariants:
        waits until it has a connection or gives up
        queued if and only if its worker counts it among the waiting
        scope is not None only if it has a deadline
        attempt is not None only while a connection is being opened for it
    """

    __slots__ = ("_left", "attempt", "queued", "scope", "timeouts", "trace", "waits")

    def __init__(self, extensions: Mapping[str, Any]) -> None:
        self.timeouts: Mapping[str, float | None] = extensions.get("timeout") or {}
        self.trace: Any = extensions.get("trace")
        self.scope: trio.CancelScope | None = None
        self.attempt: trio.CancelScope | None = None
        self.queued = False
        self.waits = True
        self._left = inf

    def queue(self) -> None:
        """Begin to wait: the pool's time-out runs from here on."""
        self.queued = True
        if self.scope is not None:
            seconds = self.timeouts["pool"]
            assert seconds is not None, "bug: a scope for nothing"
            if seconds > 0:
                self.scope.deadline = trio.current_time() + seconds
            else:
                trio.lowlevel.spawn_system_task(self._expire)

    async def _expire(self) -> None:
        """Give up at once, unless a connection can be opened at once: that has begun in a few steps."""
        for _ in range(STEPS):
            await trio.lowlevel.checkpoint()
        if self.attempt is None and self.scope is not None:
            self.scope.cancel()

    def is_being_provided(self, attempt: trio.CancelScope) -> None:
        """Stop the pool's time-out: ``attempt`` opens a connection for this request."""
        self.attempt = attempt
        if self.scope is not None:
            self._left = max(0.0, self.scope.deadline - trio.current_time())
            self.scope.deadline = inf

    def is_not_provided(self) -> None:
        """Let the pool's time-out go on where it was stopped."""
        self.attempt = None
        if self.scope is not None and self.waits:
            self.scope.deadline = trio.current_time() + self._left

    async def tell(self, event: str, info: dict[str, Any]) -> None:
        """Tell the request's tracer, while it waits for what is done for it."""
        if self.trace is None or not self.waits:
            return
        telling = self.trace(event, info)
        if not inspect.iscoroutine(telling):
            raise TypeError("the `trace` extension must be an async function")
        try:
            await telling
        except (Exception, trio.Cancelled):
            raise
        except BaseException as error:
            raise Escaped from error

    def give_up(self) -> None:
        """Leave what was begun for this request to others."""
        self.waits = False
        if self.attempt is not None and self.timeouts.get("connect") is None:
            self.attempt.deadline = min(self.attempt.deadline, trio.current_time() + ORPHANED)
