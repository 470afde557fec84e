"""The call with one request and one response."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from grpc.aio import UnaryUnaryCall as AbstractUnaryUnaryCall

from nimblepool import NoneIdle, PoolError

from ._call import warn_never_used
from ._core import ChannelClosed
from ._deadline import deadline_of
from ._errors import CANCELLED_HERE, translated
from ._responses import OneResponse
from ._types import Q, R

if TYPE_CHECKING:
    from collections.abc import Generator

    from nimblepool import PromptCheckout

    from ._core import CoreChannel
    from ._method import Method
    from ._terms import Terms


@final
class UnaryUnaryCall(OneResponse[Q, R], AbstractUnaryUnaryCall[Q, R]):
    """A call with one request and one response: ``await call`` returns that.

    Whoever first uses it carries it out, in its own task: cancelling that task cancels the call. Others wait for it.
    """

    def __init__(self, method: Method[Q, R], terms: Terms, request: Q) -> None:
        super().__init__(method, terms)
        self._request = request

    def __await__(self) -> Generator[Any, Any, R]:
        try:
            checkout = None if self._once.has_begun else self._method.route.at_once()
        except BaseException as error:
            self._give_up(error)
            raise
        responding = self._respond() if checkout is None else self._respond_at_once(checkout)
        return responding.__await__()

    async def wait_for_connection(self) -> None:
        """Wait until it has ended, for the core tells nothing before that; raises like ``await call``."""
        await self

    def __del__(self) -> None:
        if not self._once.has_begun and self.warns:
            warn_never_used(self, "await it")

    async def _receive(self) -> bytes | None:
        raw: bytes | None = await self._get()
        return raw

    async def _respond_at_once(self, checkout: PromptCheckout[CoreChannel]) -> R:
        """Do the same as `_respond` where there is nothing to wait for: without a cancel scope, and in one go."""
        once = self._once
        try:
            with checkout as lease:
                once.has_begun = True
                try:
                    request = self._prepare()
                    raw = await self._take(lease).unary_unary(request, self._terms.metadata)
                except BaseException:
                    lease.release()  # in good order: see `PoolRoute`
                    raise
        except NoneIdle:  # the idle channel was too old
            return await self._respond()
        except BaseException as error:
            failure = translated(error) if isinstance(error, PoolError | ChannelClosed) else error
            self._give_up(failure)
            if failure is error:
                raise
            raise failure from error.__cause__
        once.settle(raw)
        if raw is None:
            return await self._respond()
        self._response = response = self._method.deserialize(raw)
        return response

    async def _begin(self) -> bytes | None:
        try:
            request = self._prepare()
            return await self._with_a_channel(lambda: self._ask(request))
        except BaseException as error:
            self._give_up(error)
            raise

    async def _ask(self, request: bytes) -> bytes | None:
        async with self._method.route.checkout(self._patience) as lease:
            return await self._take(lease).unary_unary(request, self._terms.metadata)

    def _prepare(self) -> bytes:
        self._deadline = deadline_of(self._terms.timeout, scoped=True)
        return self._method.serialize(self._request)

    def _give_up(self, error: BaseException) -> None:
        self._once.fail(error)
        if self._core is None:
            self._tell_that_it_failed()
        else:
            self._core.cancel(CANCELLED_HERE)
