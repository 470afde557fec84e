"""Clients of a real PostgreSQL server and of a SQLite file, from one connection to 100 tasks on a full pool."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import chain
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from .measure import Dropped
from .section import Section
from .servers.postgres import ROWS, open_postgres
from .trials import Case, Trials, describe_spread, run_trials

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .section import Effort, Row

SELECTS = {"SELECT 1": "SELECT 1", f"{ROWS} rows": "SELECT id, name, price FROM item"}
TASKS, SIZE = 100, 10
ONE, FULL = "1 connection", f"{TASKS} tasks on {SIZE}"
QUERIES = {"SELECT 1": 1_200, f"{ROWS} rows": 800}
"""In a sample of one connection; a full pool is asked twice as often."""
SLOW = ("triopg", "triopg pool")
"""They are asked a quarter as often."""
WARM_UP = 10
"""On each connection: more than the 5 after which psycopg prepares a statement."""

CONNECTIONS: Sequence[str] = ("TrioConnection", "psycopg", "asyncpg", "asyncpg on uvloop", "triopg", "pgbench")
OUR_POOL = "Database"
POOLS: Sequence[str] = (OUR_POOL, "psycopg_pool", "asyncpg.Pool", "asyncpg.Pool on uvloop", "triopg pool", "pgbench")
POSTGRES_MODULES = (
    "database.nimble_postgres",
    "database.psycopg_asyncio",
    "database.asyncpg_asyncio",
    "database.asyncpg_uvloop",
    "database.triopg_trio",
    "database.pgbench_program",
)
ONE_GOAL = 1.3
"""The goal names no statement, so that it holds for both."""
FULL_GOALS = {"SELECT 1": 1.7, f"{ROWS} rows": 1.4}

SQLITE_QUERIES = 1_000
READERS = 5
"""aiosqlitepool's default."""
SQLITE_MODULES = ("database.nimble_sqlite", "database.aiosqlite_asyncio")
SQLITE_PAIRS = (
    ("1 connection", "one Connection", "aiosqlite", None),
    (f"{TASKS} tasks, defaults", OUR_POOL, "aiosqlitepool", 2.0),
    (f"{TASKS} tasks, equal checks", "Database, checking", "aiosqlitepool", 1.6),
)


def measure_database(effort: Effort) -> Section:
    """Compare the clients of PostgreSQL, then those of SQLite."""
    section = Section("database", "Queries to a real PostgreSQL on another core, and to a SQLite file: wall time")
    trials = Trials()
    try:
        with open_postgres() as url:
            trials = run_trials(section, POSTGRES_MODULES, list(_postgres_cases(effort, url)), effort.rounds)
    except Dropped as reason:
        section.notes.append(f"left out: PostgreSQL: {reason}")
    section.rows += _postgres_rows(trials)
    section.series = _series(trials)
    with TemporaryDirectory() as directory:
        path = Path(directory) / "items.db"
        _fill(path)
        sqlite = run_trials(section, SQLITE_MODULES, list(_sqlite_cases(effort, path)), effort.rounds)
    section.rows += _sqlite_rows(sqlite)
    trials.loads |= sqlite.loads
    section.details = trials.tabulate()
    section.notes += [*trials.open, *sqlite.open, describe_spread(section.rows)]
    section.notes.append("pgbench, in C, has no pool and no Python: the ceiling that this server sets.")
    return section


def _selects(effort: Effort) -> list[tuple[str, str]]:
    """Return what is asked; one for a quick run, in which most of the time goes into connecting."""
    return list(SELECTS.items())[: None if effort.full else 1]


def _postgres_cases(effort: Effort, url: str) -> Iterator[Case]:
    for select, sql in _selects(effort):
        one = _queries((*CONNECTIONS, OUR_POOL), effort.leases(1, QUERIES[select]))
        yield Case(f"{select}, {ONE}", {"url": url, "sql": sql}, 1, one, WARM_UP)
        many = _queries(POOLS, effort.leases(TASKS, 2 * QUERIES[select]))
        setting = {"url": url, "sql": sql, "size": SIZE}
        yield Case(f"{select}, {FULL}", setting, TASKS, many, WARM_UP * SIZE // TASKS)


def _queries(clients: Iterable[str], each: int) -> dict[str, int]:
    return {client: max(1, each // 4) if client in SLOW else each for client in clients}


def _postgres_rows(trials: Trials) -> Iterator[Row]:
    for select in SELECTS:
        case = f"{select}, {ONE}"
        for theirs in CONNECTIONS[1:]:
            yield from trials.rate_row(case, "TrioConnection", theirs, ONE_GOAL if theirs == "psycopg" else None)
        yield from trials.rate_row(case, OUR_POOL, "psycopg")
    for select in SELECTS:
        case = f"{select}, {FULL}"
        for theirs in POOLS[1:]:
            goal = FULL_GOALS[select] if theirs == "psycopg_pool" else None
            yield from trials.rate_row(case, OUR_POOL, theirs, goal)


def _series(trials: Trials) -> dict[str, list[tuple[float, float]]]:
    """Return the rates of the pools, a point for each."""
    loads = {pool: trials.loads.get((f"SELECT 1, {FULL}", pool)) for pool in POOLS}
    return {pool: [(TASKS, median(load.rate for load in found))] for pool, found in loads.items() if found}


def _sqlite_cases(effort: Effort, path: Path) -> Iterator[Case]:
    for select, sql in _selects(effort):
        for situation, ours, theirs, _ in SQLITE_PAIRS:
            setting: dict[str, Any] = {"path": str(path), "sql": sql}
            if "equal" in situation:
                setting |= {"readers": READERS}
            tasks = 1 if situation == ONE else TASKS
            each = effort.leases(tasks, SQLITE_QUERIES)
            yield Case(f"SQLite, {select}, {situation}", setting, tasks, {ours: each, theirs: each})


def _sqlite_rows(trials: Trials) -> list[Row]:
    rows = (
        trials.rate_row(f"SQLite, {select}, {situation}", ours, theirs, goal)
        for select in SELECTS
        for situation, ours, theirs, goal in SQLITE_PAIRS
    )
    return list(chain.from_iterable(rows))


def _fill(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("CREATE TABLE item (id INTEGER, name TEXT, price REAL)")
        items = [(number, f"item {number}", number * 1.25) for number in range(1, ROWS + 1)]
        connection.executemany("INSERT INTO item VALUES (?, ?, ?)", items)
        connection.commit()
