"""How long to wait between attempts to open a resource."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, final

from ._check import check_choice, check_seconds

if TYPE_CHECKING:
    from random import Random

_LARGEST_EXPONENT = 64


@final
@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential back-off: after ``n`` failures in a row the delay is drawn below ``min(cap, base * 2**n)``.

    Args:
        base: seconds; the upper end of the first delay.
        cap: seconds; the upper end of every delay.
        jitter: ``"full"`` draws the delay evenly between 0 and that bound, ``"none"`` takes the bound itself.

    Full jitter is the variant that finishes soonest with the least work in M. Brooker, "Exponential Backoff And
    Jitter", AWS Architecture Blog, 2015.
    """

    base: float = 1.0
    cap: float = 30.0
    jitter: Literal["full", "none"] = "full"

    def __post_init__(self) -> None:
        check_seconds("Backoff.base", self.base, zero=False)
        check_seconds("Backoff.cap", self.cap, zero=False)
        check_choice("Backoff.jitter", self.jitter, ("full", "none"))
        if self.cap < self.base:
            raise ValueError(f"Backoff.cap must be at least Backoff.base ({self.base}), not {self.cap}")

    def delay(self, failures: int, rng: Random) -> float:
        """Return the seconds to wait after ``failures`` failures in a row (1 or more)."""
        bound = min(self.cap, self.base * 2.0 ** min(failures - 1, _LARGEST_EXPONENT))
        return rng.uniform(0.0, bound) if self.jitter == "full" else bound
