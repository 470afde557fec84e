"""PostgreSQL's own load generator, in C: what the server can give to so many connections. It has no pool."""

from __future__ import annotations

import re
import resource
import subprocess

from benchmarks.contender import Program
from benchmarks.load import Load
from tests.database.postgres.server import NEWEST, PROGRAMS

PGBENCH = PROGRAMS[NEWEST] / "bin/pgbench"
COUNT = re.compile(r"^number of transactions actually processed: (\d+)", re.MULTILINE)
RATE = re.compile(r"^tps = ([\d.]+) \(without initial connection time\)", re.MULTILINE)


def run(url: str, sql: str, tasks: int, requests: int, size: int = 1) -> Load:
    """Let ``size`` clients in one thread ask as often as ``tasks`` tasks would together, by a prepared statement."""
    each = tasks * requests // size
    options = ["--no-vacuum", "--protocol=prepared", f"--client={size}", f"--transactions={each}", "--file=-", url]
    before = _cpu_of_children()
    done = subprocess.run([PGBENCH, *options], input=sql, capture_output=True, text=True, check=True)  # noqa: S603 - our own program
    cpu = _cpu_of_children() - before
    count, rate = int(_find(COUNT, done.stdout)), float(_find(RATE, done.stdout))
    return Load(count, 0, count / rate, cpu, None, None)


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _find(pattern: re.Pattern[str], output: str) -> str:
    found = pattern.search(output)
    if found is None:
        raise RuntimeError(f"pgbench prints something else than expected: {output}")
    return found[1]


VERSION = subprocess.run([PGBENCH, "--version"], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603 - our own program
CONTENDERS = {"pgbench": Program(run)}
