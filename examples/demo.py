"""200 tasks share 8 SQLite connections, one of which breaks; every answer is checked, and so are the pool's books.

The data is real: every named code point of Unicode, from ``unicodedata``, which also knows the right answers.
"""

from __future__ import annotations

import argparse
import logging
import random
import signal
import sqlite3
import sys
import tempfile
import unicodedata
from collections import Counter, defaultdict
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from nimblepool_database import Database

if TYPE_CHECKING:
    from nimblepool import PoolStats
    from nimblepool_database import Connection

BATCH = 10_000
INTERRUPTED = 128 + signal.SIGINT
SCHEMA = (
    """CREATE TABLE characters (
        code INTEGER PRIMARY KEY, char TEXT, name TEXT UNIQUE, category TEXT, bidirectional TEXT, combining INTEGER,
        east_asian_width TEXT, mirrored INTEGER, decomposition TEXT, decimal INTEGER, digit INTEGER, numeric REAL)""",
    "CREATE INDEX characters_category ON characters (category)",
    "CREATE INDEX characters_decimal ON characters (decimal) WHERE decimal IS NOT NULL",
    "CREATE TABLE words (word TEXT, code INTEGER, PRIMARY KEY (word, code)) WITHOUT ROWID",
)


# -- what unicodedata knows ---------------------------------------------------------------------------------------


@dataclass
class Facts:
    """The right answers, gathered from ``unicodedata`` while the tables are filled."""

    codes: list[int] = field(default_factory=list)
    categories: Counter[str] = field(default_factory=Counter)
    words: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    digits: defaultdict[int | None, list[int]] = field(default_factory=lambda: defaultdict(list))

    def add(self, code: int) -> None:
        """Take in one named code point; they come in ascending order."""
        self.codes.append(code)
        self.categories[unicodedata.category(chr(code))] += 1
        self.digits[unicodedata.decimal(chr(code), None)].append(code)
        for word in words_of(code):
            self.words[word].append(code)


def words_of(code: int) -> set[str]:
    """The words in the name of ``code``."""
    return set(unicodedata.name(chr(code)).split())


def row_of(code: int) -> tuple[object, ...]:
    """The row of ``code`` in the table ``characters``."""
    char = chr(code)
    return (
        code,
        char,
        unicodedata.name(char),
        unicodedata.category(char),
        unicodedata.bidirectional(char),
        unicodedata.combining(char),
        unicodedata.east_asian_width(char),
        unicodedata.mirrored(char),
        unicodedata.decomposition(char),
        unicodedata.decimal(char, None),
        unicodedata.digit(char, None),
        unicodedata.numeric(char, None),
    )


def is_named(code: int) -> bool:
    """Whether the code point has a name; controls, surrogates and the unassigned have none."""
    return bool(unicodedata.name(chr(code), ""))


async def load(db: Database, facts: Facts, tally: Tally, show: Display) -> None:
    """Fill the database, a transaction for each batch."""
    for statement in SCHEMA:
        await db.execute(statement)
        tally.leases += 1
    named = [code for code in range(sys.maxunicode + 1) if is_named(code)]
    for first in range(0, len(named), BATCH):
        codes = named[first : first + BATCH]
        async with db.transaction() as connection:
            tally.leases += 1
            await insert(connection, codes)
        for code in codes:
            facts.add(code)
        show.loading(len(facts.codes), len(facts.codes) / len(named))


async def insert(connection: Connection, codes: list[int]) -> None:
    """Insert what is known of ``codes``."""
    await connection.execute_many(
        "INSERT INTO characters VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", [row_of(code) for code in codes]
    )
    words = [(word, code) for code in codes for word in words_of(code)]
    await connection.execute_many("INSERT INTO words VALUES (?, ?)", words)


# -- what the tasks ask -------------------------------------------------------------------------------------------


async def by_name(connection: Connection, facts: Facts) -> bool:
    """Which character has this name?"""
    name = unicodedata.name(chr(random.choice(facts.codes)))
    rows = await connection.fetch_all("SELECT char FROM characters WHERE name = ?", [name])
    return rows == [(unicodedata.lookup(name),)]


async def by_word(connection: Connection, facts: Facts) -> bool:
    """Which names hold this word?"""
    word = random.choice(sorted(words_of(random.choice(facts.codes))))
    query = "SELECT code, name FROM words JOIN characters USING (code) WHERE word = ? ORDER BY code LIMIT 20"
    rows = await connection.fetch_all(query, [word])
    return rows == [(code, unicodedata.name(chr(code))) for code in facts.words[word][:20]]


async def by_category(connection: Connection, facts: Facts) -> bool:
    """How many characters are in this category?"""
    category = random.choice(list(facts.categories))
    rows = await connection.fetch_all("SELECT count(*) FROM characters WHERE category = ?", [category])
    return rows == [(facts.categories[category],)]


async def by_range(connection: Connection, facts: Facts) -> bool:
    """What stands in this block of code points?"""
    first = random.choice(facts.codes)
    query = "SELECT * FROM characters WHERE code BETWEEN ? AND ? ORDER BY code"
    rows = await connection.fetch_all(query, [first, first + 31])
    return rows == [row_of(code) for code in range(first, first + 32) if is_named(code)]


async def by_digit(connection: Connection, facts: Facts) -> bool:
    """Which characters stand for this decimal digit?"""
    digit = random.randrange(10)
    rows = await connection.fetch_all("SELECT code FROM characters WHERE decimal = ? ORDER BY code", [digit])
    return rows == [(code,) for code in facts.digits[digit]]


QUESTIONS = (by_name, by_word, by_category, by_range, by_digit)


# -- the crowd ----------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What the clients of the pool got, by their own count."""

    leases: int = 0
    served: Counter[int] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)

    @property
    def answers(self) -> int:
        """How many answers came, right or wrong."""
        return self.served.total()

    def count(self, task: int, question: str, *, right: bool) -> None:
        """Take in one answer."""
        self.served[task] += 1
        if not right:
            self.wrong[question] += 1


@dataclass(frozen=True)
class Job:
    """Who asks, and for how long."""

    db: Database
    facts: Facts
    tally: Tally
    begin: float
    seconds: float

    @property
    def elapsed(self) -> float:
        """Seconds since the first question."""
        return trio.current_time() - self.begin

    @property
    def running(self) -> bool:
        """Whether there is time for another question."""
        return self.elapsed < self.seconds


async def ask(job: Job, task: int) -> None:
    """Ask one question after another, each on whichever connection the pool lends."""
    while job.running:
        question = random.choice(QUESTIONS)
        async with job.db.connection() as connection:
            job.tally.leases += 1
            right = await question(connection, job.facts)
        job.tally.count(task, question.__name__, right=right)


async def break_one(job: Job, show: Display) -> None:
    """Half-way through, close a connection behind the pool's back and go on using it."""
    await trio.sleep(job.seconds / 2)
    try:
        async with job.db.connection() as connection:
            job.tally.leases += 1
            await connection.call(sqlite3.Connection.close)
            await connection.fetch_all("SELECT 1")
    except sqlite3.ProgrammingError as error:
        show.say(f"broke one connection on purpose: {error}")


async def watch(job: Job, show: Display) -> None:
    """Show how the job goes, until it ends."""
    while job.running:
        show.asking(job.elapsed / job.seconds, job.db.stats, job.tally)
        await trio.sleep(0.1)


async def crowd(job: Job, tasks: int, show: Display) -> None:
    """Run all of them."""
    async with trio.open_nursery() as nursery:
        for task in range(tasks):
            nursery.start_soon(ask, job, task)
        nursery.start_soon(break_one, job, show)
        nursery.start_soon(watch, job, show)
    show.asking(1.0, job.db.stats, job.tally)


# -- what the reader sees -----------------------------------------------------------------------------------------


class Display:
    """Plain lines, one a second at most: for a log or a pipe."""

    def __init__(self) -> None:
        self.next_line = 0.0

    def loading(self, rows: int, share: float) -> None:
        """Show how far the loading is."""
        self.tick(f"loading: {rows:,} rows, {share:.0%}", last=share == 1.0)

    def asking(self, share: float, stats: PoolStats, tally: Tally) -> None:
        """Show how far the asking is."""
        state = f"{stats.leased} of {stats.size} lent, {stats.waiting} waiting"
        self.tick(f"asking: {share:.0%}, {tally.answers:,} answers, {state}", last=share == 1.0)

    def say(self, text: str) -> None:
        """Tell of one event."""
        print(text[:80], flush=True)

    def tick(self, text: str, *, last: bool) -> None:
        """Print ``text`` unless the line before is younger than a second."""
        if last or trio.current_time() >= self.next_line:
            self.next_line = trio.current_time() + 1.0
            self.say(text)


class LiveDisplay(Display):
    """The same on a terminal, redrawn in place."""

    def __init__(self, live: Live) -> None:
        super().__init__()
        self.live = live

    def loading(self, rows: int, share: float) -> None:
        """Show how far the loading is."""
        self.draw("loading", share, {"rows": f"{rows:,}"})

    def asking(self, share: float, stats: PoolStats, tally: Tally) -> None:
        """Show how far the asking is."""
        facts = {
            "answers": f"{tally.answers:,}, {tally.wrong.total():,} of them wrong",
            "connections": f"{stats.leased} of {stats.size} lent, {stats.lost} lost, {stats.opened} opened in all",
            "tasks waiting": f"{stats.waiting}, the longest so far {stats.longest_wait:.3f} s",
        }
        self.draw("asking", share, facts)

    def say(self, text: str) -> None:
        """Tell of one event, above what is redrawn."""
        self.live.console.print(text, highlight=False, markup=False)

    def draw(self, what: str, share: float, facts: dict[str, str]) -> None:
        """Redraw the whole picture."""
        grid = Table.grid(padding=(0, 2))
        grid.add_column(justify="right")
        grid.add_column()
        grid.add_row(what, ProgressBar(completed=share * 100, width=50))
        for label, value in facts.items():
            grid.add_row(label, value)
        self.live.update(grid, refresh=True)


class DisplayHandler(logging.Handler):
    """Shows what the pool logs."""

    def __init__(self, show: Display) -> None:
        super().__init__(logging.WARNING)
        self.show = show

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record, without its traceback."""
        self.show.say(f"the pool says: {record.getMessage()}")


# -- the books ----------------------------------------------------------------------------------------------------


def books(stats: PoolStats, tally: Tally) -> dict[str, str]:
    """The figures that the pool kept, and how fairly it lent."""
    shares = tally.served.values()
    return {
        "checkouts": f"{stats.started:,}",
        "  lent at once": f"{stats.direct:,}",
        "  lent after a wait": f"{stats.waited:,}",
        "  ended without one": f"{unserved(stats):,}",
        "longest wait": f"{stats.longest_wait:.3f} s",
        "answers for each task": f"{min(shares, default=0):,} to {max(shares, default=0):,}",
        "connections opened": f"{stats.opened}",
        "  broken, replaced": f"{stats.lost}",
    }


def unserved(stats: PoolStats) -> int:
    """How many checkouts ended without a connection."""
    return stats.timed_out + stats.shed + stats.cancelled + stats.refused + stats.failed


def checks(stats: PoolStats, tally: Tally) -> dict[str, bool]:
    """What must be true at the end."""
    lent = stats.direct + stats.waited
    ended = lent + unserved(stats) + stats.waiting
    return {
        f"all {tally.answers:,} answers agree with unicodedata": tally.answers > 0 and not tally.wrong,
        f"each checkout is accounted for: {stats.started:,} started, {ended:,} ended": stats.started == ended,
        f"each lease went to a task: {lent:,} lent, {tally.leases:,} received": lent == tally.leases,
        f"each connection was closed: {stats.opened} opened, {stats.closed} closed, {stats.size} left": (
            stats.opened == stats.closed and stats.size == 0
        ),
        f"the broken connection was replaced, and no other: {stats.lost}": stats.lost == 1,
    }


def report(stats: PoolStats, tally: Tally) -> int:
    """Print the books and what must hold, and return the exit code."""
    print("\nthe books of the pool")
    for label, value in books(stats, tally).items():
        print(f"  {label:<24}{value}")
    print("\nwhat must hold")
    results = checks(stats, tally)
    for statement, holds in results.items():
        print(f"  {'yes' if holds else 'NO '}  {statement}")
    return 0 if all(results.values()) else 1


# -- putting it together ------------------------------------------------------------------------------------------


async def run(path: Path, options: argparse.Namespace, show: Display) -> tuple[PoolStats, Tally]:
    """Load, ask, close; return the books as they stand after closing."""
    facts, tally = Facts(), Tally()
    db = Database(f"sqlite:///{path}", max_size=options.connections, checkout_timeout=30.0)
    async with db:
        await load(db, facts, tally, show)
        await crowd(Job(db, facts, tally, trio.current_time(), options.seconds), options.tasks, show)
    return db.stats, tally


async def run_unless_interrupted(
    path: Path, options: argparse.Namespace, show: Display
) -> tuple[PoolStats, Tally] | None:
    """Run until the end or until Ctrl-C, which cancels: everything is closed in order then too."""
    finished = None
    async with trio.open_nursery() as nursery:
        await nursery.start(cancel_on_interrupt, nursery.cancel_scope, show)
        finished = await run(path, options, show)
        nursery.cancel_scope.cancel()
    return finished


async def cancel_on_interrupt(
    scope: trio.CancelScope, show: Display, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Wait for Ctrl-C."""
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        task_status.started()
        await anext(signals)
        show.say("interrupted")
        scope.cancel()


def display() -> tuple[AbstractContextManager[object], Display]:
    """What suits standard output."""
    if not sys.stdout.isatty():
        return nullcontext(), Display()
    live = Live(auto_refresh=False)
    return live, LiveDisplay(live)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long the tasks ask (5)")
    parser.add_argument("--tasks", type=int, default=200, help="how many tasks ask (200)")
    parser.add_argument("--connections", type=int, default=8, help="how many connections they share (8)")
    return parser.parse_args()


def main() -> int:
    """Run the demo and return its exit code."""
    options = parse()
    screen, show = display()
    logging.getLogger("nimblepool").addHandler(DisplayHandler(show))
    with tempfile.TemporaryDirectory() as directory, screen:
        show.say(f"{options.tasks} tasks are going to share {options.connections} connections to one SQLite file")
        finished = trio.run(run_unless_interrupted, Path(directory) / "unicode.db", options, show)
    return INTERRUPTED if finished is None else report(*finished)


if __name__ == "__main__":
    sys.exit(main())
