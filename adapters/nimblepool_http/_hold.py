"""The hold that a request has on a connection, until its response has been dealt with."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from nimblepool import Lease

    from ._connection import Connection
    from ._worker import ConnectionWorker


@final
class Hold:
    """A lease, and what has to be done when it ends.

    Nothing but the response refers to it: if the response is lost, so is the lease, and the pool notices.

    Invariant: lease is None once it has ended
    """

    __slots__ = ("_lease", "_worker", "connection")

    def __init__(self, lease: Lease[Connection], worker: ConnectionWorker) -> None:
        self._lease: Lease[Connection] | None = lease
        self._worker = worker
        self.connection = lease.resource

    @property
    def is_held(self) -> bool:
        return self._lease is not None

    def end(self, *, keep: bool = True) -> None:
        """End the lease; the connection is kept if it is in order, and ``keep`` is true. Idempotent; never waits."""
        lease, self._lease = self._lease, None
        if lease is None or not lease.is_held:
            return
        reason = self._worker.returned(self.connection, keep=keep)
        if reason is not None:
            lease.remove(reason)
        lease.release()

    def retire(self) -> None:
        """See that nobody else gets the connection."""
        if self._lease is not None and self._lease.is_held:
            self.connection.gone = True
            self._lease.remove()

    def abandon(self) -> None:
        """End the lease in the midst of a response."""
        self.end(keep=False)
