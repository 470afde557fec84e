"""The tables, and the file of results."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from .section import Row, Section

LARGE = 100
"""From here on figures are printed without decimals."""

HEADER = ("case", "ours", "against", "theirs", "ratio", "budget", "")
NAMES = (0, 2, 6)
"""The columns that are words; the others are figures."""


def print_environment(environment: dict[str, str]) -> None:
    """Print on what was measured."""
    for name, value in environment.items():
        print(f"{name:<12}{value}")


def print_section(section: Section) -> None:
    """Print one table with its notes."""
    print(f"\n{section.title}")
    for name, version in section.versions.items():
        print(f"  {name}: {version}")
    _print_lines([HEADER, *(cells(row) for row in section.rows)], NAMES)
    for note in section.notes:
        print(f"  {note}")
    if section.details is not None:
        print()
        _print_lines([section.details.header, *section.details.lines], range(section.details.names))


def print_budgets(sections: list[Section]) -> None:
    """Print every budget beside its figure."""
    rows = [row for section in sections for row in section.rows if row.met is not None]
    print("\nBudgets")
    for row in rows:
        against = f" against {row.against}" if row.against else ""
        figure = _ratio(row) or _figure(row.ours.median, row.unit)
        print(f"  {_verdict(row):<8} {figure:>10}  {_budget(row):>19}  {row.case}{against}")


def write_results(path: Path, environment: dict[str, str], sections: list[Section]) -> None:
    """Store all figures, with quartiles and the number of rounds."""
    results = {
        "environment": environment,
        "sections": [asdict(section) for section in sections],
        "budgets": [
            {"case": row.case, "against": row.against, "most": row.most, "least": row.least, "met": row.met}
            for section in sections
            for row in section.rows
            if row.met is not None
        ],
    }
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def cells(row: Row) -> tuple[str, ...]:
    """Return the line of a table, under `HEADER`."""
    theirs = "" if row.theirs is None else _figure(row.theirs.median, row.unit)
    return (row.case, _figure(row.ours.median, row.unit), row.against, theirs, _ratio(row), _budget(row), _verdict(row))


def _figure(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}" if value >= LARGE else f"{value:,.2f} {unit}"


def _ratio(row: Row) -> str:
    return "" if row.ratio is None else f"{row.ratio.median:.2f}x"


def _budget(row: Row) -> str:
    limit = row.least if row.most is None else row.most
    if limit is None:
        return ""
    text = f"{limit:.2f}x" if row.ratio is not None else _figure(limit, row.unit)
    return f"at {'least' if row.most is None else 'most'} {text}"


def _verdict(row: Row) -> str:
    return {None: "", True: "met", False: "not met"}[row.met]


def _print_lines(lines: Sequence[tuple[str, ...]], names: Collection[int]) -> None:
    """Print lines of cells in columns; ``names`` are those that begin at the left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (
            cell.ljust(width) if column in names else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  " + "  ".join(padded).rstrip())
