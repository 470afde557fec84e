"""The callbacks that a user of the pool writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

from ._verdict import Verdict

if TYPE_CHECKING:
    from ._verdict import Reason, Stage

R = TypeVar("R")
"""The resource: whatever the worker's ``init`` returns."""


class PoolWorker(ABC, Generic[R]):
    """How to open, judge and close one kind of resource; the pool does everything else.

    Only ``init`` must be written. ``checkout``, ``checkin``, ``capacity``, ``message``, ``enqueue`` and ``cancelled``
    are plain functions: they decide, at once, and run between two steps of the event loop, so they must not block
    and must not call the pool. The ``async`` callbacks do the I/O; each runs in a task of the pool's own, under its
    own deadline, never in a client's task: a client that is cancelled never cuts one short. A callback that raises,
    hangs past its deadline or answers nonsense costs the resource it was about, and nothing else.

    One worker may serve several pools only if it keeps no state of its own.
    """

    @abstractmethod
    async def init(self) -> R:
        """Open one resource.

        Runs under ``init_timeout``, and is cancelled when the pool closes: like any cancelled function it must then
        leave nothing open. Whatever it *returns* is passed to ``terminate`` exactly once.

        Raises:
            Exception: the resource cannot be opened. The pool counts the failure and backs off.
            Fatal: the same, and waiting would not help: ``on_open_failure="wait"`` does not apply.
        """

    async def terminate(self, resource: R, reason: Reason) -> None:
        """Close ``resource``; called exactly once for each that ``init`` returned.

        Shielded from outside cancellation, under ``terminate_timeout``. If it raises or hangs, that is logged and the
        resource is abandoned. The default does nothing.
        """

    def checkout(self, resource: R, request: object) -> Verdict:
        """Decide whether ``resource`` may be lent for ``request``; the default says ``OK``.

        Raises:
            Skip: the client gets the error inside, the resource stays and serves the next waiter.
            Exception: the client gets it and the resource is removed.
        """
        return Verdict.OK

    def checkin(self, resource: R, error: BaseException | None) -> Verdict:
        """Decide what becomes of ``resource`` after a lease that ended with ``error``.

        ``error`` is ``None`` after a good end; it is the body's exception otherwise, a ``trio.Cancelled`` among them.
        The default keeps the resource after a good end and removes it after any other, for a half-read reply would
        reach the next client: a worker that knows better vouches for it.
        """
        return Verdict.OK if error is None else Verdict.REMOVE

    async def reset(self, resource: R) -> None:
        """Bring ``resource`` back to a clean state (``ROLLBACK``, drain, authenticate again); raising means dead.

        Runs under ``reset_timeout`` whenever a verdict was ``RESET``; the client that returned it has gone on.
        """

    async def ping(self, resource: R) -> None:
        """Raise if the idle ``resource`` is dead. Runs under ``ping_timeout`` (``ping_every``, ``ping_after``)."""

    async def watch(self, resource: R) -> None:
        """Live as long as ``resource``: returning or raising says that it has died.

        If overridden, it runs in a task of its own from the opening of the resource until just before ``terminate``,
        during leases, ``ping`` and ``reset`` too. Two tasks must not read from one socket: where the client reads as
        well, let ``watch`` be the only reader, and hand on what it reads.
        """
        await trio.sleep_forever()

    def capacity(self, resource: R) -> int:
        """How many leases ``resource`` carries at a time; the default is 1.

        If overridden, the resource is shared: it is asked again at every lease and every checkin, and at
        ``pool.refresh_capacity()``. At 0 it takes no new lease; leases that are out may end.
        """
        return 1

    def message(self, resource: R, message: object) -> Verdict:
        """Decide what ``pool.broadcast(message)`` means for the idle ``resource``; the default keeps it."""
        return Verdict.OK

    def enqueue(self, request: object) -> object:
        """Return the request to queue in place of ``request``; raising refuses the client with that error.

        Called once, when a checkout finds nothing idle and has to wait.
        """
        return request

    def cancelled(self, stage: Stage, request: object) -> None:
        """Hear that a client gave up: it was cancelled or timed out while ``queued``, or its body was cancelled.

        A body may also have been cancelled by the pool itself (``max_hold``, ``close_grace``, ``on_death="cancel"``).
        """

    async def start(self) -> None:
        """Run once, before the first ``init``; what it raises comes out of ``open_pool``, which waits for it.

        There is no deadline: put ``open_pool`` under a cancel scope. In a keyed pool it runs with the first ``init`` of
        its key, under ``init_timeout``, and failing it is failing to open.
        """

    async def stop(self) -> None:
        """Run once, after the last ``terminate``, shielded, under ``terminate_timeout``."""


def overrides(worker: PoolWorker[R], name: str) -> bool:
    """Tell whether ``worker`` has a callback of its own: the pool does not call the ones that it has not."""
    return getattr(getattr(worker, name), "__func__", None) is not getattr(PoolWorker, name)
