"""A slot: the pool's record of one resource, and the table of everything that can happen to it.

Theory of operation
-------------------
A slot lives from the decision to open a resource to the end of its ``terminate``. At most **one** asynchronous callback
runs on it at a time (``init``, ``ping``, ``reset``, ``terminate``; ``watch`` runs beside them), always in a task of the
pool's own, never in a client's. So a client that is cancelled disturbs no callback, and a state names who has the
resource: the pool (IDLE), clients (LEASED, RETIRED) or one callback (OPENING, PINGING, RESETTING, CLOSING).

Waiting clients are not bound to slots. They stand in one queue; a slot that becomes lendable is offered to the head of
the queue, and the head leaves it only with a lease or an error. When the slot offered needs a ping or turns out to be
dead, the slot goes its way and the head keeps its place.

What must not be lent again is *retired*: at once when nobody has it, and else when whoever has it gives it back. The
first reason to retire a slot is kept in ``slot.doom``; a callback that is running is asked to stop, and its end leads
to CLOSING. Thus ``terminate`` never runs beside another callback, and runs once for each resource that ``init``
returned.

Events: ``opened``, ``open_failed`` (init), ``lend``, ``checkin`` (clients), ``ping``, ``ping_ok``, ``ping_failed``,
``reset``, ``reset_ok``, ``reset_failed`` (callbacks), ``retire`` (age, idleness, uses, refresh, resize, death, close),
``terminated``. Where the table lists several states, the slot's own figures decide: leases left, doom, verdict.
"""

from __future__ import annotations

from enum import Enum
from math import inf
from typing import Final, Generic, TypeVar, final

from ._verdict import Reason

R = TypeVar("R")


@final
class SlotState(Enum):
    """Who has the resource."""

    OPENING = "opening"
    """``init`` is running; there is no resource yet."""
    IDLE = "idle"
    """Nobody: it can be lent."""
    LEASED = "leased"
    """One lease or more; lendable still if its capacity is not used up."""
    RETIRED = "retired"
    """Leases that were out when it was doomed; no new lease, closed with the last checkin."""
    PINGING = "pinging"
    """``ping``."""
    RESETTING = "resetting"
    """``reset``."""
    CLOSING = "closing"
    """``terminate``."""
    CLOSED = "closed"
    """Nobody: there is no resource any more."""


IDLE: Final = SlotState.IDLE
LEASED: Final = SlotState.LEASED
"""For what every lease does: before Python 3.12 it takes long to look up a member of an enum."""

_S = SlotState

TRANSITIONS: dict[SlotState, dict[str, tuple[SlotState, ...]]] = {
    _S.OPENING: {
        "opened": (_S.IDLE, _S.CLOSING),
        "open_failed": (_S.CLOSED,),
        "retire": (_S.OPENING,),
    },
    _S.IDLE: {
        "lend": (_S.LEASED, _S.RETIRED),
        "ping": (_S.PINGING,),
        "reset": (_S.RESETTING,),
        "retire": (_S.CLOSING,),
    },
    _S.LEASED: {
        "lend": (_S.LEASED, _S.RETIRED),
        "checkin": (_S.LEASED, _S.IDLE, _S.RESETTING, _S.RETIRED, _S.CLOSING),
        "retire": (_S.RETIRED,),
    },
    _S.RETIRED: {
        "checkin": (_S.RETIRED, _S.CLOSING),
        "retire": (_S.RETIRED,),
    },
    _S.PINGING: {
        "ping_ok": (_S.IDLE, _S.CLOSING),
        "ping_failed": (_S.CLOSING,),
        "retire": (_S.PINGING,),
    },
    _S.RESETTING: {
        "reset_ok": (_S.IDLE, _S.CLOSING),
        "reset_failed": (_S.CLOSING,),
        "retire": (_S.RESETTING,),
    },
    _S.CLOSING: {
        "retire": (_S.CLOSING,),
        "terminated": (_S.CLOSED,),
    },
    _S.CLOSED: {},
}
"""What each event may make of each state. An event that a state does not list is a bug of the pool."""


@final
class Slot(Generic[R]):
    """One resource and its figures. Only `PoolState` changes them.

    Invariants:
        0 <= leases <= the largest capacity the resource has had
        leases > 0 if and only if state is LEASED or RETIRED
        state is LEASED implies doom is None; state is RETIRED implies doom is not None
        the rack holds the slot if and only if it has no doom and is IDLE, or PINGING, or LEASED, clean, and not full
        running is not None only while a callback runs
    """

    __slots__ = (
        "capacity",
        "checked_at",
        "doom",
        "expires_at",
        "expiry",
        "idle_since",
        "leases",
        "opened_at",
        "reset_at_use",
        "resource",
        "running",
        "state",
        "unclean",
        "uses",
        "watching",
    )

    def __init__(self) -> None:
        self.state = SlotState.OPENING
        self.resource: R
        self.leases = 0
        self.capacity = 1
        self.uses = 0
        self.opened_at = inf
        self.idle_since = inf
        self.checked_at = inf
        self.expires_at = inf
        self.expiry = Reason.AGE
        """Why it is retired at ``expires_at``: its age, or its turn in a refresh."""
        self.doom: Reason | None = None
        self.unclean = False
        """A RESET verdict was given; the reset runs when the last lease has ended."""
        self.reset_at_use = -1
        """What ``uses`` was when it was last reset: a RESET verdict asks for no second reset without a use between."""
        self.running: object = None
        """The shell's handle on the callback that runs, by which it can be cancelled."""
        self.watching: object = None
        """The shell's handle on ``watch``."""

    def __repr__(self) -> str:
        return f"<Slot {self.state.value} leases={self.leases}/{self.capacity} doom={self.doom}>"
