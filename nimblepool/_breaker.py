"""The circuit breaker over opening resources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from ._check import check_count

BreakerState = Literal["closed", "open", "half-open"]
"""Clients wait for resources to be opened; they fail at once; one attempt is being made."""


@final
@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """After ``threshold`` failures to open a resource in a row, stop making clients wait for one.

    While the breaker is open, a checkout that has no living resource to wait for fails at once with `PoolUnavailable`.
    When the back-off has run out it is half-open: one attempt is made, and its outcome closes or reopens it. Living
    resources go on being lent throughout. (M. Nygard, "Release It!", 2007, ch. 5.)

    Args:
        threshold: failures in a row, 1 or more.
    """

    threshold: int = 5

    def __post_init__(self) -> None:
        check_count("CircuitBreaker.threshold", self.threshold, least=1)
