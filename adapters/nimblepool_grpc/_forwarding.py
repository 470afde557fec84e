"""Calls that stand before another one."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

from ._callback import tell
from ._streaming import StreamingCall

if TYPE_CHECKING:
    from collections.abc import Callable

    from grpc import StatusCode
    from grpc.aio import Metadata

    from ._types import DoneCallback


class ForwardingCall:
    """What it is asked, it asks the call behind it.

    Invariant: _inner is that call, and None before it is known
    """

    _inner: Any = None

    def done(self) -> bool:
        """Whether it has ended."""
        return bool(self._inner.done())

    def cancelled(self) -> bool:
        """Whether it was ended from here."""
        return bool(self._inner.cancelled())

    def cancel(self) -> bool:
        """End it; tell whether it was still going on."""
        return bool(self._inner.cancel())

    def time_remaining(self) -> float | None:
        """Seconds until its deadline, or ``None`` if it has none."""
        return cast("float | None", self._inner.time_remaining())

    def add_done_callback(self, callback: DoneCallback) -> None:
        """Call ``callback(call)`` once when it ends; at once if it has ended."""
        self._inner.add_done_callback(partial(_tell_instead, callback, self))

    async def initial_metadata(self) -> Metadata:
        """Wait for the server's initial metadata."""
        return cast("Metadata", await self._ask("initial_metadata"))

    async def trailing_metadata(self) -> Metadata:
        """Wait for the end, and return the server's trailing metadata."""
        return cast("Metadata", await self._ask("trailing_metadata"))

    async def code(self) -> StatusCode:
        """Wait for the end, and return the status; it is not raised."""
        return cast("StatusCode", await self._ask("code"))

    async def details(self) -> str:
        """Wait for the end, and return the words that came with the status."""
        return cast("str", await self._ask("details"))

    async def debug_error_string(self) -> str:
        """Wait for the end, and return what gRPC's core has to say about it."""
        return cast("str", await self._ask("debug_error_string"))

    async def wait_for_connection(self) -> None:
        """Wait until it is on its way to a server; raises if it has failed by then."""
        await (await self._behind()).wait_for_connection()

    def when_it_ends(self, run: Callable[[], object]) -> None:
        """Call ``run`` when it ends; see the function of that name."""
        when_it_ends(self._inner, run)

    async def _behind(self) -> Any:  # noqa: ANN401 - a call of any kind
        """Return the call behind this one, once it is known."""
        return self._inner

    async def _ask(self, name: str) -> Any:  # noqa: ANN401 - as the method is
        return await getattr(await self._behind(), name)()


def when_it_ends(call: Any, run: Callable[[], object]) -> None:  # noqa: ANN401 - of any kind
    """Call ``run`` when ``call``, which has begun, ends.

    Unlike with a done callback, a call of ours can be abandoned all the same.
    """
    if isinstance(call, ForwardingCall | StreamingCall):
        call.when_it_ends(run)
    else:
        call.add_done_callback(partial(_run, run))


def _tell_instead(callback: DoneCallback, call: object, _: object) -> None:
    tell(callback, call)


def _run(run: Callable[[], object], _: object) -> None:
    run()
