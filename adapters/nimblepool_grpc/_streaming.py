"""Calls in which messages are streamed."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, cast

import trio

from ._call import Call, warn_never_used
from ._deadline import deadline_of
from ._errors import CANCELLED_HERE
from ._types import Q, R

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from ._core import CoreCall
    from ._route import Held

BLOCK_LEFT = "The block of the call was left!"
COLLECTED = "Cancelled upon garbage collection!"
"""grpc.aio's words."""


class StreamingCall(Call[Q, R]):
    """A call in which messages are streamed. It keeps its lease until it ends, is cancelled, or is abandoned.

    ``async with call`` begins it, and cancels it at the end of the block if it has not ended. Trio's deadline is the
    RPC's, too, if the block or the loop begins it: what is read or written by hand may outlast the cancel scope.

    Invariant: _token is not None once the RPC has begun
    """

    _token: trio.lowlevel.TrioToken | None = None
    _scoped = False

    async def __aenter__(self) -> Self:
        await self._begin_here()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._core is not None:
            self._core.cancel(BLOCK_LEFT)

    async def wait_for_connection(self) -> None:
        """Wait until it is on its way to a server; raises if it has failed by then."""
        core = self._core or await self._began()
        await core.connected()
        if core.done:
            await self._raise_if_failed()

    def when_it_ends(self, run: Callable[[], object]) -> None:
        """Call ``run`` when the RPC, which has begun, ends; the call can be abandoned before that all the same."""
        assert self._core is not None, "bug: the RPC has not begun"
        self._core.add_done_callback(run)

    def __del__(self) -> None:
        core = self._core
        if core is None:
            if self.warns and not self._once.has_begun:
                warn_never_used(self, "iterate over it, enter it, or await its response")
        elif not core.done and self._token is not None:
            # The collector runs anywhere, even in another thread.
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(core.cancel, COLLECTED)

    def _start(self, core: CoreCall) -> None:
        """Start the RPC, of whichever kind it is."""
        raise NotImplementedError

    async def _began(self) -> CoreCall:
        """Begin the RPC, if nobody has, and return it."""
        return cast("CoreCall", await self._get())

    async def _begin_here(self) -> CoreCall:
        """Do the same for a block: the cancel scopes around it are around all of the RPC."""
        if not self._once.has_begun:
            self._scoped = True
        return await self._began()

    async def _begin(self) -> CoreCall:
        self._deadline = deadline_of(self._terms.timeout, scoped=self._scoped)
        return await self._with_a_channel(self._open)

    async def _open(self) -> CoreCall:
        route = self._method.route
        lease = await route.acquire(self._patience)
        try:
            core = self._open_on(lease)
        except BaseException:
            if self._core is not None:
                self._core.cancel(CANCELLED_HERE)
            lease.release()
            raise
        route.began(core)
        return core

    def _open_on(self, lease: Held) -> CoreCall:
        if self._once.error is not None:  # cancelled, after the lease had come and before this task could run
            raise self._once.error
        core = self._take(lease)
        self._token = trio.lowlevel.current_trio_token()
        self._start(core)
        core.add_done_callback(lease.release)
        return core

    async def _raise_if_failed(self) -> None:
        error = await self._error()
        if error is not None:
            raise error
