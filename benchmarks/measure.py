"""Rounds, medians and ratios."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median, quantiles
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

T = TypeVar("T")

LEAST_ROUNDS = 7


@dataclass(frozen=True)
class Figure:
    """The middle of several rounds, and its quartiles."""

    median: float
    lower: float
    upper: float
    rounds: int


def summarize(samples: Sequence[float]) -> Figure:
    """Return the figure of ``samples``."""
    lower, middle, upper = quantiles(samples, n=4, method="inclusive")
    return Figure(middle, lower, upper, len(samples))


def compare(ours: Sequence[float], theirs: Sequence[float]) -> Figure:
    """Return ours to theirs: the ratio within each round, and the middle of these ratios."""
    return summarize([our / their for our, their in zip(ours, theirs, strict=True)])


class Dropped(Exception):  # noqa: N818 - says what is the case
    """A contender cannot take part; the text says why."""


def interleave(
    sides: Mapping[str, Callable[[], T]], rounds: int, dropped: dict[str, str] | None = None
) -> dict[str, list[T]]:
    """Sample each side once in every round, A B C A B C; one more round goes before, as a warm-up, and is dropped.

    Args:
        sides: what takes one sample of each side.
        rounds: how many rounds count.
        dropped: takes the reasons of those that fail, who then stay away; without it their failure is everyone's.

    Raises:
        Dropped: a side failed, and ``dropped`` is ``None``.
    """
    samples: dict[str, list[T]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in list(samples):
            try:
                value = sides[name]()
            except Dropped as reason:
                if dropped is None:
                    raise
                dropped[name] = str(reason)
                del samples[name]
            else:
                samples[name] += [value] if number else []
    return samples


def best(samples: Mapping[str, Sequence[float]]) -> str:
    """Return the name of the side whose median is least."""
    return min(samples, key=lambda name: median(samples[name]))
