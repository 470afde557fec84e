"""Where a call gets its channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractAsyncContextManager
    from typing import Any

    from nimblepool import Default, PromptCheckout

    from ._core import CoreCall, CoreChannel


class Held(Protocol):
    """The right to begin a call on a channel: a lease of the pool, or a part of one."""

    @property
    def resource(self) -> CoreChannel: ...

    def release(self) -> None: ...


class Route(Protocol):
    """Where a call gets its channel: from the pool, or from a lease."""

    def at_once(self) -> PromptCheckout[CoreChannel] | None:
        """Lend a channel to the block if there is nothing to wait for; ``None`` says: ask `checkout`."""
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
        """Take note of an RPC on an acquired channel."""
        ...

    def start_soon(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a task that serves a call; it ends with the channel, and must not fail."""
        ...
