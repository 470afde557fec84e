"""What the reader sees."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .tally import Tally


class Display:
    """Plain lines, one in ten seconds."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._next_line = 0.0

    def progress(self, tally: Tally) -> None:
        """Show how far it is."""
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + 10.0
            self.say(f"{tally.operations:>9,} of {self.total:,} operations, {tally.rounds} pools")

    def say(self, text: str) -> None:
        """Print ``text``."""
        print(text, flush=True)


class Bar(Display):
    """A progress bar, for a terminal."""

    def __init__(self, total: int, bar: Progress) -> None:
        super().__init__(total)
        self._bar = bar
        self._task = bar.add_task("operations", total=total)

    def progress(self, tally: Tally) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=min(tally.operations, self.total))

    def say(self, text: str) -> None:
        """Print ``text`` above the bar."""
        self._bar.console.print(text, highlight=False, markup=False)


@contextmanager
def open_display(total: int) -> Iterator[Display]:
    """Show a bar in a terminal, lines elsewhere."""
    if not Console().is_terminal:
        yield Display(total)
        return
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        yield Bar(total, bar)
