"""What the four kinds of call have in common."""

from __future__ import annotations

import warnings
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Generic

import trio
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata

from nimblepool import DEFAULT, PoolError, PoolUnavailable

from ._callback import tell
from ._core import ChannelClosed, Status
from ._deadline import UNLIMITED
from ._errors import CANCELLED_HERE, RpcCancelled, RpcCheckoutTimeout, error_from, translated
from ._once import Once
from ._route import PAUSE
from ._types import Q, R

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeVar

    from nimblepool import Default

    from ._core import CoreCall
    from ._deadline import Deadline
    from ._method import Method
    from ._route import Held
    from ._terms import Terms
    from ._types import DoneCallback

    T = TypeVar("T")


class Call(Generic[Q, R]):
    """One call. It begins when it is first used: awaited, iterated, read, written, entered, or asked about its outcome.

    What its methods do and raise is what grpc.aio's do and raise, except where it is said otherwise.

    Invariants:
        _core is not None if and only if the RPC has begun
        _callbacks is empty once the RPC has begun
    """

    _core: CoreCall | None = None
    _deadline: Deadline = UNLIMITED
    _callbacks: tuple[DoneCallback, ...] = ()
    warns = True
    """Whether it says so if it is collected unused."""

    def __init__(self, method: Method[Q, R], terms: Terms) -> None:
        self._method = method
        self._terms = terms
        self._once: Once[Any] = Once()

    # What becomes of it

    def done(self) -> bool:
        """Whether it has ended: well, badly, or before it began."""
        return self._once.error is not None if self._core is None else self._core.done

    def cancelled(self) -> bool:
        """Whether it was ended from here."""
        return isinstance(self._once.error, RpcCancelled) if self._core is None else self._core.is_cancelled

    def cancel(self) -> bool:
        """End it, here and at the server; whoever works on it gets `RpcCancelled`. Tell whether it was still going on.

        No checkpoint: the status is known when this returns.
        """
        if self._core is not None:
            return self._core.cancel(CANCELLED_HERE)
        if self.done():
            return False
        self._once.fail(RpcCancelled(CANCELLED_HERE))
        self._tell_that_it_failed()
        return True

    def time_remaining(self) -> float | None:
        """Seconds until its deadline, or ``None`` if it has none."""
        if self._core is None:
            return self._terms.timeout
        return None if self._deadline is UNLIMITED else max(0.0, self._deadline.left)

    def add_done_callback(self, callback: DoneCallback) -> None:
        """Call ``callback(call)`` once when it ends; at once if it has ended. It must not wait.

        A call with callbacks is not abandoned when nobody has it any more: it ends, cancels or is closed first.
        """
        if self._core is not None:
            self._core.add_done_callback(partial(tell, callback, self))
        elif self.done():
            tell(callback, self)
        else:
            self._callbacks += (callback,)

    # What the server says

    async def initial_metadata(self) -> Metadata:
        """Wait for the server's initial metadata; empty if it ended without."""
        core = await self._known()
        return Metadata() if core is None else Metadata(*await core.initial_metadata())

    async def trailing_metadata(self) -> Metadata:
        """Wait for the end, and return the server's trailing metadata."""
        return Metadata(*(await self._status()).trailing_metadata)

    async def code(self) -> StatusCode:
        """Wait for the end, and return the status; it is not raised."""
        return (await self._status()).code

    async def details(self) -> str:
        """Wait for the end, and return the words that came with the status."""
        return (await self._status()).details

    async def debug_error_string(self) -> str:
        """Wait for the end, and return what gRPC's core has to say about it."""
        return (await self._status()).debug_error_string

    def __repr__(self) -> str:
        state = "ended" if self.done() else "not begun" if self._core is None else "running"
        return f"<{type(self).__name__} of {self._method.name.decode()}, {state}>"

    # For the kinds of call

    async def _begin(self) -> Any:  # noqa: ANN401 - each kind has its own
        """Do what the first use of the call asks for; `Once` sees that it is done once."""
        raise NotImplementedError

    async def _get(self) -> Any:  # noqa: ANN401 - see above
        """Return what `_begin` returned, or raise what it raised; run it if nobody has."""
        try:
            return await self._once.get(self._begin)
        except BaseException:
            if self._core is None:
                self._tell_that_it_failed()
            raise

    async def _known(self) -> CoreCall | None:
        """Begin, if nobody has, and return the RPC; ``None`` if it failed to begin.

        Raises:
            Exception: it failed with something that is not gRPC's: a request that cannot be serialised.
        """
        with suppress(AioRpcError):
            await self._get()
        return self._core

    async def _status(self) -> Status:
        core = await self._known()
        if core is not None:
            return await core.status()
        error = self._once.error
        assert isinstance(error, AioRpcError), "bug: a call that did not begin, and nobody knows why"
        return Status(error.code(), error.details() or "", (), error.debug_error_string() or "")

    def _take(self, lease: Held) -> CoreCall:
        """Make the RPC on the leased channel.

        Raises:
            RpcCheckoutTimeout: its deadline has passed; the server would often carry it out all the same.
        """
        terms = self._terms
        if self._deadline is not UNLIMITED and self._deadline.has_passed:
            raise RpcCheckoutTimeout("the deadline had passed before anything was sent")
        core = lease.resource.call(
            self._method.name,
            deadline=None if self._deadline is UNLIMITED else self._deadline.on_the_clock,
            credentials=terms.credentials,
            wait_for_ready=terms.wait_for_ready,
        )
        self._core = core
        callbacks, self._callbacks = self._callbacks, ()
        for callback in callbacks:
            core.add_done_callback(partial(tell, callback, self))
        return core

    @property
    def _patience(self) -> float | Default | None:
        """How long to wait for a channel."""
        if self._terms.timeout is None:
            return None if self._terms.wait_for_ready else DEFAULT
        return None if self._deadline.is_trios else max(0.0, self._deadline.left)

    def _tell_that_it_failed(self) -> None:
        callbacks, self._callbacks = self._callbacks, ()
        for callback in callbacks:
            tell(callback, self)

    async def _with_a_channel(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return what ``attempt`` returns; if no channel is to be had, and the call waits for one, attempt it again.

        Raises:
            AioRpcError: there is no channel.
        """
        while True:
            try:
                return await attempt()
            except (PoolError, ChannelClosed) as error:
                await self._wait_or_give_up(error)

    async def _wait_or_give_up(self, error: PoolError | ChannelClosed) -> None:
        if not self._terms.wait_for_ready or not isinstance(error, PoolUnavailable):
            raise translated(error) from error.__cause__
        if self._deadline.left <= PAUSE and not self._deadline.is_trios:
            raise RpcCheckoutTimeout(
                f"no channel was usable in time: {translated(error).details()}"
            ) from error.__cause__
        await trio.sleep(PAUSE)

    async def _error(self) -> BaseException | None:
        """Return what the RPC's end means to whoever works on it: ``None`` if it is well."""
        core = self._core
        assert core is not None, "bug: an RPC ended that never began"
        status = core.status_now or await self._final_status(core)
        if status.code is StatusCode.OK:
            return None
        if core.is_cancelled:
            return RpcCancelled(status.details, status.debug_error_string)
        if status.code is StatusCode.DEADLINE_EXCEEDED:
            await self._deadline.let_trio_win()
        return error_from(status, core.initial_metadata_now)

    async def _final_status(self, core: CoreCall) -> Status:
        """Wait for the status on behalf of a task that works on the call, whose cancellation is the call's."""
        try:
            return await core.status()
        except trio.Cancelled:
            core.cancel(CANCELLED_HERE)
            raise


def warn_never_used(call: object, advice: str) -> None:
    """Say what Python says of a coroutine: such a mistake is hard to find otherwise."""
    warnings.warn(f"{call!r} was never used, and nothing was sent: {advice}", RuntimeWarning, stacklevel=2, source=call)
