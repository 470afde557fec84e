"""The worker's plain callbacks, called so that none can harm the pool."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Generic, TypeVar, final

from ._check import check_count
from ._verdict import Verdict
from ._worker import overrides

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._verdict import Stage
    from ._worker import PoolWorker

R = TypeVar("R")
logger = logging.getLogger("nimblepool")


@final
class Hooks(Generic[R]):
    """One worker's callbacks that decide. Which ones it overrides is looked up once: the others are never called.

    Args:
        worker: whose callbacks they are.
        crash: told of what is more than a failure (``SystemExit``) where raising it would leave a change of the pool's
            state half done.
    """

    def __init__(self, worker: PoolWorker[R], crash: Callable[[BaseException], object]) -> None:
        self._worker = worker
        self._crash = crash
        self._name = type(worker).__name__
        self.judges_checkout = overrides(worker, "checkout")
        self.judges_checkin = overrides(worker, "checkin")
        self.rewrites = overrides(worker, "enqueue")
        self._hears_cancelled = overrides(worker, "cancelled")
        self.shared = overrides(worker, "capacity")

    def checkout(self, resource: R, request: object) -> Verdict:
        """Return the worker's verdict.

        Raises:
            Exception: whatever the callback raised, or a ``TypeError`` if it returned no verdict.
        """
        return self._checked("checkout", self._worker.checkout(resource, request))

    def checkin(self, resource: R, error: BaseException | None) -> Verdict:
        """Return the worker's verdict; ``REMOVE`` if the callback failed, which is logged."""
        try:
            return self._checked("checkin", self._worker.checkin(resource, error))
        except Exception:
            logger.exception("%s.checkin failed; the resource is removed", self._name)
            return Verdict.REMOVE

    def message(self, resource: R, message: object) -> Verdict:
        """Return the worker's verdict; ``REMOVE`` if the callback failed, which is logged."""
        try:
            return self._checked("message", self._worker.message(resource, message))
        except BaseException as error:  # noqa: BLE001 - it is noted
            self._note(error, "%s.message failed; the resource is removed")
            return Verdict.REMOVE

    def capacity(self, resource: R) -> int | None:
        """Return how many leases the resource carries; ``None`` if the callback failed, which is logged."""
        try:
            capacity = self._worker.capacity(resource)
            if type(capacity) is not int or capacity < 0:  # the words for the error are made only then
                check_count(f"what {self._name}.capacity returns", capacity, least=0)
        except BaseException as error:  # noqa: BLE001 - it is noted
            self._note(error, "%s.capacity failed; the resource is removed")
            return None
        return capacity

    def enqueue(self, request: object) -> object:
        """Return the request to queue; whatever the callback raises is the client's."""
        return self._worker.enqueue(request)

    def cancelled(self, stage: Stage, request: object) -> None:
        """Tell the worker that a client gave up."""
        if self._hears_cancelled:
            try:
                self._worker.cancelled(stage, request)
            except BaseException as error:  # noqa: BLE001 - it is noted
                self._note(error, "%s.cancelled failed")

    def _note(self, error: BaseException, text: str) -> None:
        if isinstance(error, Exception):
            logger.error(text, self._name, exc_info=error)
        else:
            self._crash(error)

    def _checked(self, callback: str, verdict: object) -> Verdict:
        if isinstance(verdict, Verdict):
            return verdict
        raise TypeError(f"{self._name}.{callback} returned {verdict!r}; it must return a nimblepool.Verdict")
