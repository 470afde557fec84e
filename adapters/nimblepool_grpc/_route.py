"""Where a call gets its channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractAsyncContextManager
    from typing import Any

    from nimblepool import Default, PromptCheckout

    from ._core import CoreCall, CoreChannel

PAUSE: Final = 0.05
"""Seconds between two attempts to get a channel, for a call that waits until there is one."""


class Held(Protocol):
    """The right to begin a call on a channel: a lease of the pool's, or a `Part` of the one that a block has."""

    @property
    def resource(self) -> CoreChannel: ...

    def release(self) -> None: ...


class Route(Protocol):
    """Where a call gets its channel: from the pool, or from a lease.

    It asks in one of three ways. A unary call, which lives as long as one block does, asks `at_once`, and if there is
    something to wait for, or something that may cancel the block, `checkout`. A stream outlives the method that begins
    it: `acquire`, and once its RPC has started, `began`.
    """

    def at_once(self) -> PromptCheckout[CoreChannel] | None:
        """Lend a channel to a block if there is nothing to wait for; ``None`` says: ask `checkout`."""
        ...

    def checkout(self, patience: float | Default | None) -> AbstractAsyncContextManager[Held]:
        """Lend a channel to the block, which carries out one RPC.

        Raises:
            nimblepool.PoolError: there is none to be had; raised here or when the block is entered.
        """
        ...

    async def acquire(self, patience: float | Default | None) -> Held:
        """Lend a channel until it is released.

        Raises:
            nimblepool.PoolError: there is none to be had.
        """
        ...

    def began(self, core: CoreCall) -> None:
        """Take note of an RPC on an acquired channel; no checkpoint may lie between the two."""
        ...

    def start_soon(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a task that serves a call; it ends with the channel, and must not fail."""
        ...
