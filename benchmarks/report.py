"""The tables, and the file of results."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from .section import Row, Section

NOT_MEASURED = (
    ("GET through httpx.AsyncClient, 100 tasks x 100 connections, against httpx's transport", "0.06x"),
    ("the same, 1,000 x 100, against httpx's transport", "0.12x"),
    ("the same, 1,000 x 100, against httpx2's transport, through httpx2", "0.65x"),
    ("the same, 1 task, against httpx's transport", "1.0x"),
)
LARGE = 100
"""From here on figures are printed without decimals."""

HEADER = ("case", "ours", "against", "theirs", "ratio", "at most", "")


def print_environment(environment: dict[str, str]) -> None:
    """Print on what was measured."""
    for name, value in environment.items():
        print(f"{name:<12}{value}")


def print_section(section: Section) -> None:
    """Print one table with its notes."""
    print(f"\n{section.title}")
    for name, version in section.versions.items():
        print(f"  {name}: {version}")
    lines = [HEADER, *(cells(row) for row in section.rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    for line in lines:
        print("  " + "  ".join(_align(cell, widths[column], column) for column, cell in enumerate(line)).rstrip())
    for note in section.notes:
        print(f"  {note}")


def print_budgets(sections: list[Section]) -> None:
    """Print every budget beside its figure."""
    rows = [row for section in sections for row in section.rows if row.most is not None]
    print("\nBudgets")
    for row in rows:
        against = f" against {row.against}" if row.against else ""
        figure = _ratio(row) or _figure(row.ours.median, row.unit)
        print(f"  {_verdict(row):<8} {figure:>10}  at most {_most(row):>10}  {row.case}{against}")
    for case, most in NOT_MEASURED:
        print(f"  {'open':<8} {'-':>10}  at most {most:>10}  {case}: not measured, there is no HTTP adapter yet")


def write_results(path: Path, environment: dict[str, str], sections: list[Section]) -> None:
    """Store all figures, with quartiles and the number of rounds."""
    results = {
        "environment": environment,
        "sections": [asdict(section) for section in sections],
        "budgets": [
            {"case": row.case, "against": row.against, "most": row.most, "met": row.met}
            for section in sections
            for row in section.rows
            if row.most is not None
        ],
    }
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def cells(row: Row) -> tuple[str, ...]:
    """Return the line of a table, under `HEADER`."""
    theirs = "" if row.theirs is None else _figure(row.theirs.median, row.unit)
    return (row.case, _figure(row.ours.median, row.unit), row.against, theirs, _ratio(row), _most(row), _verdict(row))


def _figure(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}" if value >= LARGE else f"{value:,.2f} {unit}"


def _ratio(row: Row) -> str:
    return "" if row.ratio is None else f"{row.ratio.median:.2f}x"


def _most(row: Row) -> str:
    if row.most is None:
        return ""
    return f"{row.most:.2f}x" if row.ratio is not None else _figure(row.most, row.unit)


def _verdict(row: Row) -> str:
    return {None: "", True: "met", False: "not met"}[row.met]


def _align(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if HEADER[column] in {"case", "against", ""} else cell.rjust(width)
