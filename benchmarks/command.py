"""The command line: ``python -m benchmarks [--quick] [--only NAME]``."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .chart import draw
from .database import measure_database
from .document import write_figures
from .environment import describe_environment
from .grpc_clients import measure_grpc
from .http_clients import measure_http
from .lending import measure_lending, measure_options
from .measure import LEAST_ROUNDS
from .memory import measure_memory
from .overload import measure_overload
from .peers import measure_peers
from .report import print_budgets, print_environment, print_section, write_results
from .section import Effort
from .shape import measure_shape
from .websocket_clients import measure_websocket

if TYPE_CHECKING:
    from collections.abc import Callable

    from .section import Section

SECTIONS: dict[str, Callable[[Effort], Section]] = {
    "lending": measure_lending,
    "options": measure_options,
    "peers": measure_peers,
    "shape": measure_shape,
    "memory": measure_memory,
    "overload": measure_overload,
    "database": measure_database,
    "http": measure_http,
    "websocket": measure_websocket,
    "grpc": measure_grpc,
}
HERE = Path(__file__).parent
QUICK = Effort(rounds=LEAST_ROUNDS, scale=0.2, full=False)
FULL = Effort(rounds=11, scale=1.0, full=True)


def main(arguments: list[str]) -> int:
    """Measure and print; after a full run, store the results and the chart."""
    options = parse(arguments)
    effort = QUICK if options.quick else FULL
    began = time.monotonic()
    environment = describe_environment()
    print_environment(environment)
    print(f"{'rounds':<12}{effort.rounds}, interleaved, after one that is dropped; medians")
    sections: dict[str, Section] = {}
    for name in [options.only] if options.only else SECTIONS:
        started = time.monotonic()
        sections[name] = SECTIONS[name](effort)
        print_section(sections[name])
        print(f"  ({time.monotonic() - started:.0f} s)", flush=True)
    if not options.only:
        print_budgets(list(sections.values()))
    if not (options.only or options.quick):
        store(environment, sections)
    print(f"\n{time.monotonic() - began:.0f} s")
    return 0


def store(environment: dict[str, str], sections: dict[str, Section]) -> None:
    """Write what a full run found."""
    ordered = list(sections.values())
    write_results(HERE / "results.json", environment, ordered)
    draw(HERE / "results.png", sections)
    print("\nwritten: benchmarks/results.json, benchmarks/results.png")
    if write_figures(HERE.parent / "docs" / "performance.md", environment, ordered):
        print("written: the tables of docs/performance.md")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the pool and its peers.")
    parser.add_argument(
        "--quick", action="store_true", help="fewer leases and rounds; about three minutes; stores nothing"
    )
    parser.add_argument(
        "--only", metavar="NAME", choices=SECTIONS, help=f"one of {', '.join(SECTIONS)}; stores nothing"
    )
    return parser.parse_args(arguments)
