"""The small words that workers and the pool exchange."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Final, final


@final
class Verdict(Enum):
    """What a worker's callback decided about a resource."""

    OK = "ok"
    """Use it, or keep it."""
    RESET = "reset"
    """Run the worker's ``reset`` on it first, in the background."""
    REMOVE = "remove"
    """Terminate it; a checkout goes on with another."""
    REFRESH = "refresh"
    """Terminate it, and retire every resource opened before now: the server failed over."""


OK: Final = Verdict.OK
"""For what every lease does: before Python 3.12 it takes long to look up a member of an enum."""


@final
class Reason(StrEnum):
    """Why a resource is being terminated; passed to the worker's ``terminate``."""

    REMOVED = "removed"
    """A verdict or the client asked for it, or a lease ended in an error."""
    FAILED = "failed"
    """A callback raised, timed out, or answered with something that is not a verdict."""
    PING = "ping failed"
    """The health check raised or timed out."""
    RESET = "reset failed"
    """The reset raised or timed out."""
    DIED = "died"
    """The worker's ``watch`` ended."""
    HELD = "held too long"
    """Its lease went past ``max_hold``."""
    ABANDONED = "abandoned"
    """Whoever acquired it ended, or lost the lease, without releasing it."""
    IDLE = "idle too long"
    """It reached ``max_idle``."""
    AGE = "too old"
    """It reached ``max_age``."""
    USES = "used up"
    """It reached ``max_uses``."""
    REFRESH = "refreshed"
    """``refresh`` or a ``REFRESH`` verdict retired it."""
    SURPLUS = "surplus"
    """``resize`` made the pool smaller."""
    EVICTED = "evicted"
    """A keyed pool needed its room for another key."""
    CLOSED = "pool closed"
    """The pool is closing."""


UNHEALTHY = frozenset(
    {Reason.REMOVED, Reason.FAILED, Reason.PING, Reason.RESET, Reason.DIED, Reason.HELD, Reason.ABANDONED}
)
"""The reasons that count a resource as lost; the others are housekeeping."""


@final
class Stage(StrEnum):
    """Where a client was when it gave up; passed to the worker's ``cancelled``."""

    QUEUED = "queued"
    LEASED = "leased"


class Fatal(Exception):  # noqa: N818 - a control-flow signal, like StopIteration
    """Raised by a worker's ``init`` when trying again is futile until somebody intervenes: a wrong password, say.

    With ``on_open_failure="wait"`` clients then get `PoolUnavailable` at once, as they do without it.

    Args:
        error: what is reported, and the cause of their `PoolUnavailable`.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class Skip(Exception):  # noqa: N818 - a control-flow signal, like StopIteration
    """Raised by a worker's ``checkout`` to refuse one client and keep the resource.

    Args:
        error: what the client's checkout raises. The next waiter is served.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error
