"""Which reply belongs to which request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias, final, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from websockets.typing import Data


@runtime_checkable
class Correlator(Protocol):
    """Finds the id that a request and its reply have in common. Plain functions, called for every message."""

    def request_id(self, message: Data, /) -> Hashable | None:
        """Return the id of a request that is to be sent; ``None`` if it expects no reply."""
        ...

    def reply_id(self, message: Data, /) -> Hashable | None:
        """Return the id of the request that ``message`` answers; ``None`` if it answers none."""
        ...


Correlate: TypeAlias = "Correlator | Callable[[Data], Hashable | None]"
"""A correlator, or one function for both directions."""


@final
class _Both:
    """One function as a correlator."""

    def __init__(self, function: Callable[[Data], Hashable | None]) -> None:
        self.request_id = function
        self.reply_id = function


@final
class _Nothing:
    """What there is without ``correlate``: every message is unsolicited."""

    def request_id(self, _: Data, /) -> Hashable | None:
        raise TypeError("request() needs to know which reply is whose: give open_websockets a `correlate`")

    def reply_id(self, _: Data, /) -> Hashable | None:
        return None


def correlator_from(correlate: Correlate | None) -> Correlator:
    """Return the correlator that is meant."""
    if correlate is None:
        return _Nothing()
    if isinstance(correlate, Correlator):
        return correlate
    if callable(correlate):
        return _Both(correlate)
    raise TypeError(f"correlate must be a function of a message, or have request_id and reply_id, not {correlate!r}")
