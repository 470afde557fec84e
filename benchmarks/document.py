"""The figures in ``docs/performance.md``: the tables between two marks are those of the last full run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .report import HEADER, NAMES, cells

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
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
    lines = [cells(row) for row in section.rows]
    header = (*HEADER[:-1], "verdict")
    kept = [column for column in range(len(header)) if any(line[column] for line in lines)]
    table = _draw(
        [tuple(line[column] for column in kept) for line in (header, *lines)],
        [position for position, column in enumerate(kept) if column in NAMES],
    )
    notes = "".join(f"\n{note}\n" for note in section.notes)
    versions = ", ".join(version for version in section.versions.values() if version != "this tree")
    text = f"### {section.title}\n\n{versions}\n\n{table}{notes}".replace("\n\n\n\n", "\n\n")
    details = section.details
    if details is None:
        return text
    return f"{text}\n{_draw([details.header, *details.lines], range(details.names))}"


def _draw(lines: Sequence[tuple[str, ...]], names: Collection[int]) -> str:
    heading, *body = (f"| {' | '.join(line)} |\n" for line in lines)
    rule = " | ".join("---" if column in names else "---:" for column in range(len(lines[0])))
    return f"{heading}| {rule} |\n{''.join(body)}"
