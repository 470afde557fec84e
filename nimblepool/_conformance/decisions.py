"""The decisions: what the callbacks that are plain functions answer, and how fast."""

from __future__ import annotations

from inspect import isawaitable, iscoroutine
from math import inf
from typing import TYPE_CHECKING, Final, Generic, TypeVar, final

import trio

from nimblepool._check import check_count
from nimblepool._verdict import Skip, Verdict

from .complaint import BrokenContractError, broken
from .situations import BodyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from nimblepool._worker import PoolWorker

R = TypeVar("R")
T = TypeVar("T")

_BLOCKING: Final = 0.1
"""Seconds that a deciding callback may take at its fastest; meanwhile no other task of the program runs."""


@final
class Decisions(Generic[R]):
    """Asks the worker for decisions, and looks at the answers."""

    def __init__(self, worker: PoolWorker[R], request: object, clock: Callable[[], float]) -> None:
        self._worker = worker
        self._request = request
        self._clock = clock
        self._fastest: dict[str, float] = {}

    async def check(self, resource: R) -> None:
        """Ask for each decision about the fresh ``resource``."""
        self._check_checkout(resource)
        self._check_checkin(resource, None)
        self._check_checkin(resource, BodyError())
        await self._check_cancelled_body(resource)
        self._check_capacity(resource)
        self._check_message(resource)
        self._check_enqueue()

    def check_speed(self) -> None:
        """Raise if a decision blocked. Only its fastest counts, for a busy machine may slow any one of them down."""
        for callback, fastest in self._fastest.items():
            if fastest > _BLOCKING:
                raise self._broken(
                    callback,
                    f"blocks: it took {fastest:.2g} s at its fastest, in which no other task can run",
                    "move what waits into ping, reset or watch",
                )

    def _check_checkout(self, resource: R) -> None:
        verdict = self._decide("checkout", lambda: self._worker.checkout(resource, self._request))
        self._check_verdict("checkout", verdict)
        if verdict in {Verdict.REMOVE, Verdict.REFRESH}:
            rule = f"returned {verdict} for a fresh resource"
            raise self._broken("checkout", rule, "no client would ever be served: return OK")

    def _check_checkin(self, resource: R, error: BaseException | None) -> None:
        self._check_verdict("checkin", self._decide("checkin", lambda: self._worker.checkin(resource, error)))

    async def _check_cancelled_body(self, resource: R) -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as cancelled:
                self._check_checkin(resource, cancelled)
                raise

    def _check_capacity(self, resource: R) -> None:
        capacity = self._decide("capacity", lambda: self._worker.capacity(resource))
        try:
            check_count("capacity", capacity, least=0)
        except (TypeError, ValueError) as error:
            remedy = "return how many leases it carries, an int >= 0"
            raise self._broken("capacity", f"returned {capacity!r}", remedy) from error
        if capacity == 0:
            remedy = "no client would be served: return 1 or more"
            raise self._broken("capacity", "returned 0 for a fresh resource", remedy)

    def _check_message(self, resource: R) -> None:
        """Broadcast a message of which the worker knows nothing: it may raise, but not answer nonsense."""
        try:
            verdict = self._time("message", lambda: self._worker.message(resource, None))
        except BrokenContractError:
            raise
        except Exception:  # noqa: BLE001 - what messages there are is the worker's affair
            return
        self._check_verdict("message", verdict)

    def _check_enqueue(self) -> None:
        request = self._decide("enqueue", lambda: self._worker.enqueue(self._request))
        if request is None and self._request is not None:
            raise self._broken("enqueue", "returned None", "return the request to queue")

    def _check_verdict(self, callback: str, verdict: object) -> None:
        if not isinstance(verdict, Verdict):
            raise self._broken(callback, f"returned {verdict!r}", "return a nimblepool.Verdict")

    def _decide(self, callback: str, call: Callable[[], T]) -> T:
        """Return what ``call`` returns; it must not raise."""
        try:
            return self._time(callback, call)
        except BrokenContractError:
            raise
        except Exception as error:
            if isinstance(error, Skip) or callback == "enqueue":
                refusal = error.error if isinstance(error, Skip) else error
                rule = f"refused the request {self._request!r} with {refusal!r}"
                remedy = "pass one that it accepts: check_worker(worker, request=...)"
            else:
                rule = f"raised {error!r}"
                remedy = "that costs a resource: catch it, and return an answer"
            raise self._broken(callback, rule, remedy) from error

    def _time(self, callback: str, call: Callable[[], T]) -> T:
        """Return what ``call`` returns, and note how long it takes at its fastest."""
        began = self._clock()
        answer = call()
        self._fastest[callback] = min(self._fastest.get(callback, inf), self._clock() - began)
        if isawaitable(answer):
            if iscoroutine(answer):
                answer.close()
            raise self._broken(callback, "returned an awaitable", "write it as a plain function, 'def'")
        return answer

    def _broken(self, callback: str, rule: str, remedy: str) -> BrokenContractError:
        return broken(self._worker, callback, rule, remedy)
