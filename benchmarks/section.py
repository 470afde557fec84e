"""What a part of the benchmarks hands to those who print, draw and store it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .measure import Figure


@dataclass(frozen=True)
class Effort:
    """How much to measure. ``scale`` stretches the number of leases in a sample."""

    rounds: int
    scale: float
    full: bool

    def leases(self, tasks: int, total: int, least: int = 10) -> int:
        """Return how many leases each of ``tasks`` takes, so that all take about ``total``."""
        return max(least, int(total * self.scale) // tasks)


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure of ours, perhaps one of somebody else, perhaps a budget.

    ``ratio`` is ours to theirs. What is budgeted is the ratio, or the figure where there is none: at ``most`` so much
    of a cost, at ``least`` so much of a rate.
    """

    case: str
    ours: Figure
    against: str = ""
    theirs: Figure | None = None
    ratio: Figure | None = None
    most: float | None = None
    unit: str = "µs"
    least: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the budget is met; ``None`` if there is none."""
        figure = (self.ratio or self.ours).median
        if self.most is not None:
            return figure <= self.most
        return None if self.least is None else figure >= self.least


@dataclass(frozen=True)
class Table:
    """More figures, ready to be printed; the first columns, as many as ``names`` says, are words."""

    header: tuple[str, ...]
    lines: list[tuple[str, ...]]
    names: int = 2


@dataclass
class Section:
    """One part of the benchmarks."""

    name: str
    title: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    details: Table | None = None
    series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
