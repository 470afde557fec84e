"""How many resources may be opening at a time, and when: back-off, breaker, ramp."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from random import Random

    from ._backoff import Backoff
    from ._breaker import BreakerState, CircuitBreaker


@final
class Supply:
    """What the outcomes of ``init`` say about the next ones.

    While it fails there is a single prober, at the times that the back-off allows. Once it succeeds again, each
    success allows one attempt more at a time: they double with every round, as in TCP's slow start, and a server that
    has just come back meets no herd.

    Invariants:
        failures == 0 if and only if last_error is None
        failures == 0 implies retry_at == -inf
        1 <= ramp <= max_opening
    """

    def __init__(
        self, *, max_opening: float, backoff: Backoff, breaker: CircuitBreaker | None, shared: bool, rng: Random
    ) -> None:
        self.max_opening = max_opening
        self._backoff = backoff
        self._threshold = inf if breaker is None else breaker.threshold
        self._rng = rng
        self._ramp: float = max_opening
        self.lost_at_birth = False
        """The last failure was no failure to open: the resource was lost before its first use."""
        self._rounds = 0
        self._before_success = (0, 0)
        self.failures = 0
        """Failures in a row."""
        self.last_error: BaseException | None = None
        self.retry_at = -inf
        self.leases_each: float = inf if shared else 1
        """How many waiters one opening resource is expected to serve; unknown, thus all, before the first one."""

    def allowance(self, now: float) -> float:
        """Return how many resources may be opening at ``now``."""
        if self.failures == 0:
            return self._ramp
        return 1 if now >= self.retry_at else 0

    def breaker(self, now: float) -> BreakerState:
        if self.failures < self._threshold:
            return "closed"
        return "half-open" if now >= self.retry_at else "open"

    def succeeded(self) -> None:
        self._before_success = (self.failures, self._rounds)
        self.failures = 0
        self.last_error = None
        self._rounds = 0
        self.retry_at = -inf
        self._ramp = min(self.max_opening, self._ramp + 1)
        self.lost_at_birth = False

    def failed(self, error: BaseException, now: float) -> None:
        """Count a failure. Those of one burst, begun before the first of them was known, lengthen the delay once."""
        self.failures += 1
        self.last_error = error
        self.lost_at_birth = False
        self._ramp = 1
        if now >= self.retry_at:
            self._rounds += 1
            self.retry_at = now + self._backoff.delay(self._rounds, self._rng)

    def relapsed(self, error: BaseException, now: float) -> None:
        """Count the last success as a failure: what was opened was lost at once."""
        failures, rounds = self._before_success
        self.failures = max(self.failures, failures)
        self._rounds = max(self._rounds, rounds)
        self.failed(error, now)
        self.lost_at_birth = True
