"""The worker of one origin's pool."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final, final

import trio

from nimblepool import PoolWorker, Reason, Verdict

from ._connection import Connection, SharedConnection
from ._ticket import Ticket

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._connector import Connector
    from ._dialler import Versions
    from ._origin import Origin

SURPLUS: Final = "surplus"
"""Broadcast: close what is idle beyond the limit. Any other message: all that is idle."""
UNASKED_CONNECT: Final = 30.0
"""Seconds to connect when no request has asked for it (``min_connections``, ``warm_up``)."""


@final
class Census:
    """How many connections of all origins are idle.

    Args:
        most: as many may be.
        trim: closes what is idle beyond that; called when a new one may be.
    """

    __slots__ = ("_trim", "idle", "most")

    def __init__(self, most: float, trim: Callable[[], None]) -> None:
        self.idle = 0
        self.most = most
        self._trim = trim

    def add(self) -> None:
        """Count a new connection; if nobody is going to use it, it may be one too many."""
        self.idle += 1
        if self.idle > self.most:
            trio.lowlevel.current_trio_token().run_sync_soon(self._trim, idempotent=True)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Site:
    """What a worker knows of its origin, and of the transport."""

    origin: Origin
    connector: Connector
    versions: Versions
    census: Census
    changed: Callable[[], None]
    """To be called when a server has changed how many requests it takes at a time."""
    left: Callable[[ConnectionWorker], None]
    """To be called when the worker's pool has left."""


class ConnectionWorker(PoolWorker[Connection]):
    """Opens, judges and closes the connections to one origin, one request at a time on each.

    Invariants:
        waiting is how many tickets are queued
        the line has every ticket that is queued and not provided for, and no other
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self._census = site.census
        self._line: OrderedDict[Ticket, None] = OrderedDict()
        self.waiting = 0
        self.is_set_up = False
        """Whether the pool has the sizes that its origin is to have."""

    async def init(self) -> Connection:
        with trio.CancelScope() as attempt:
            tickets = self._next_tickets()
            if not tickets:
                attempt.deadline = trio.current_time() + UNASKED_CONNECT
            for ticket in tickets:
                ticket.is_being_provided(attempt)
            try:
                ticket = tickets[0] if tickets else Ticket({})
                connection = await self.site.connector.open(self.site.origin, self.site.versions, ticket)
            except trio.Cancelled:
                self._put_back(tickets)
                raise
            self._put_back(tickets[connection.capacity :])
            self._census.add()
            return connection
        raise trio.TooSlowError("nobody waits for the connection any more")

    async def terminate(self, resource: Connection, reason: Reason) -> None:
        if resource.leases == 0 and not resource.gone:
            resource.gone = True
            self._census.idle -= 1
        await resource.close()

    async def stop(self) -> None:
        self.site.left(self)

    def enqueue(self, request: object) -> object:
        assert isinstance(request, Ticket), "bug: somebody else uses this pool"
        request.queue()
        self.waiting += 1
        self._line[request] = None
        return request

    def checkout(self, resource: Connection, request: object) -> Verdict:
        resource.offered()
        if not resource.is_usable():
            return Verdict.REMOVE
        if resource.leases == 0:
            self._census.idle -= 1
        resource.leases += 1
        assert isinstance(request, Ticket), "bug: somebody else uses this pool"
        self.settled(request)
        return Verdict.OK

    def message(self, resource: Connection, message: object) -> Verdict:
        if message is SURPLUS and self._census.idle <= self._census.most:
            return Verdict.OK
        resource.gone = True
        self._census.idle -= 1
        return Verdict.REMOVE

    def settled(self, ticket: Ticket) -> None:
        """Take note that a request has a connection, or has given up."""
        ticket.waits = False
        if ticket.queued:
            ticket.queued = False
            self.waiting -= 1
            self._line.pop(ticket, None)

    def returned(self, connection: Connection, *, keep: bool) -> Reason | None:
        """Take note that a request has done with ``connection``; say why it must be closed, if it must."""
        connection.leases -= 1
        if not keep or not connection.is_in_order():
            connection.gone = True
            return Reason.REMOVED
        if connection.leases > 0:
            return None
        if self._census.idle >= self._census.most and not self.waiting:
            connection.gone = True
            return Reason.SURPLUS
        self._census.idle += 1
        return None

    def _next_tickets(self) -> list[Ticket]:
        """Return the requests that the next connection is for."""
        tickets: list[Ticket] = []
        while self._line and len(tickets) < self._expected():
            ticket, _ = self._line.popitem(last=False)
            tickets.append(ticket)
        return tickets

    def _expected(self) -> float:
        """Return how many requests the next connection is expected to carry."""
        return 1

    def _put_back(self, tickets: list[Ticket]) -> None:
        for ticket in reversed(tickets):
            ticket.is_not_provided()
            if ticket.waits:
                self._line[ticket] = None
                self._line.move_to_end(ticket, last=False)


@final
class SharedConnectionWorker(ConnectionWorker):
    """The same where HTTP/2 may be spoken: a connection carries as many requests as its server allows."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._capacity = inf

    async def init(self) -> Connection:
        connection = await super().init()
        self._capacity = max(1, connection.capacity)
        if isinstance(connection, SharedConnection):
            connection.wire.on_change = self.site.changed
        return connection

    async def watch(self, resource: Connection) -> None:
        await resource.watch()

    def capacity(self, resource: Connection) -> int:
        return resource.capacity

    def _expected(self) -> float:
        return self._capacity
