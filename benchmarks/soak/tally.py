"""The sums over all rounds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .display import Display
    from .listener import Listener
    from .scene import Scene

BOOKED = (
    *("started", "direct", "waited", "timed_out", "shed", "cancelled", "refused", "failed"),
    *("opened", "open_failures", "closed", "lost"),
)


@dataclass
class Tally:
    """What was done, and what became of it."""

    rounds: int = 0
    operations: int = 0
    books: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    def add(self, scene: Scene) -> None:
        """Take in a round."""
        self.rounds += 1
        self.operations += scene.done
        self.books.update({name: getattr(scene.pool.stats, name) for name in BOOKED})
        self.outcomes.update(scene.outcomes)
        self.faults.update(scene.worker.faults)

    def report(self, listener: Listener, took: float, show: Display) -> None:
        """Print the sums."""
        show.say(f"{self.operations:,} operations on {self.rounds} pools in {took:.1f} s")
        for title, counts in (
            ("books", self.books),
            ("faults", self.faults),
            ("log", listener.lines),
            ("outcomes", self.outcomes),
        ):
            show.say(f"\n{title}")
            for name, number in sorted(counts.items()) if title == "outcomes" else counts.items():
                show.say(f"  {name:36} {number:>12,}")
