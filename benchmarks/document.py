"""The figures in ``docs/performance.md``: the tables between two marks are those of the last full run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .report import HEADER, cells

if TYPE_CHECKING:
    from pathlib import Path

    from .section import Section

BEGIN = "<!-- figures: written by `make bench` -->\n"
END = "<!-- end of the figures -->\n"


def write_figures(path: Path, environment: dict[str, str], sections: list[Section]) -> bool:
    """Put the tables into the document; false if it has no place for them."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        return False
    tables = [_describe(environment), *(_tabulate(section) for section in sections)]
    path.write_text(head + BEGIN + "\n" + "\n".join(tables) + "\n" + END + tail, encoding="utf-8")
    return True


def _describe(environment: dict[str, str]) -> str:
    return "".join(f"- {name}: {value}\n" for name, value in environment.items())


def _tabulate(section: Section) -> str:
    columns = range(len(HEADER))
    lines = [cells(row) for row in section.rows]
    kept = [column for column in columns if any(line[column] for line in lines)]
    heading = " | ".join(HEADER[column] or "budget" for column in kept)
    rule = " | ".join("---" if HEADER[column] in {"case", "against", ""} else "---:" for column in kept)
    body = "".join(f"| {' | '.join(line[column] for column in kept)} |\n" for line in lines)
    notes = "".join(f"\n{note}\n" for note in section.notes)
    versions = ", ".join(version for version in section.versions.values() if version != "this tree")
    return f"### {section.title}\n\n{versions}\n\n| {heading} |\n| {rule} |\n{body}{notes}".replace("\n\n\n\n", "\n\n")
