"""The picture for the README: four panels, from the sections that were measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .contender import load_peer
from .overload import BRISK, CODEL, GOODPUT, PATIENT, WAIT
from .shape import BUSY, IDLE, KEY, KEYS, WAITING

if TYPE_CHECKING:
    from pathlib import Path

    from .section import Section

OURS, THEIRS = "#0b6e4f", "#9aa5b1"
COLOURS = (OURS, "#33658a", "#f6ae2d", "#f26419", "#9aa5b1")


def draw(path: Path, sections: dict[str, Section]) -> None:
    """Draw all panels into a PNG file."""
    matplotlib = load_peer("matplotlib")
    matplotlib.use("Agg")
    pyplot = load_peer("matplotlib.pyplot")
    figure, ((crowds, peers), (shape, storm)) = pyplot.subplots(2, 2, figsize=(13, 9), layout="constrained")
    _draw_crowds(crowds, sections["lending"])
    _draw_peers(peers, sections["peers"])
    _draw_shape(shape, sections["shape"])
    _draw_storm(storm, sections["overload"])
    for panel in (crowds, peers, shape, storm):
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _draw_crowds(panel: Any, section: Section) -> None:  # noqa: ANN401 - matplotlib is not installed for type checks
    for (name, points), colour in zip(section.series.items(), COLOURS, strict=True):
        sizes, values = zip(*points, strict=True)
        panel.plot(sizes, values, marker="o", label="nimblepool" if name == "pool" else name, color=colour)
    panel.set(xscale="log", ylim=(0, None), xlabel="tasks on 10 resources", ylabel="µs for checkout and checkin")
    panel.set_title("Against trio's primitives")
    panel.legend(frameon=False)


def _draw_peers(panel: Any, section: Section) -> None:  # noqa: ANN401 - the same
    first = section.rows[0]
    bars = [
        (row.against, row.theirs.median, THEIRS) for row in section.rows if row.theirs and "alone" not in row.against
    ]
    bars = sorted([(first.case, first.ours.median, OURS), *bars], key=lambda bar: -bar[1])
    drawn = panel.barh([bar[0] for bar in bars], [bar[1] for bar in bars], color=[bar[2] for bar in bars])
    panel.bar_label(drawn, fmt="%.1f", padding=3)
    panel.set(xlabel="µs a lease, each on its own event loop")
    panel.set_title("Against peers with stub resources, 100 tasks on 10")


def _draw_shape(panel: Any, section: Section) -> None:  # noqa: ANN401 - the same
    for axis, colour in zip((WAITING, IDLE, BUSY, KEY, KEYS), COLOURS, strict=True):
        for name in (name for name in section.series if name.startswith(f"{axis}: ")):
            ours = name.endswith(": pool")
            sizes, values = zip(*section.series[name], strict=True)
            panel.plot(sizes, values, "-o" if ours else ":", color=colour, label=axis if ours else None, markersize=4)
    panel.set(xscale="log", ylim=(0, None), xlabel="how many", ylabel="µs a lease")
    panel.set_title("Cost against size (dotted: trio.Semaphore)")
    panel.legend(frameon=False)


def _draw_storm(panel: Any, section: Section) -> None:  # noqa: ANN401 - the same
    waits = panel.twinx()
    for who, colour in zip((CODEL, PATIENT, BRISK), (OURS, THEIRS, COLOURS[2]), strict=True):
        loads, goodput = zip(*section.series[f"{GOODPUT}: {who}"], strict=True)
        _, wait = zip(*section.series[f"{WAIT}: {who}"], strict=True)
        panel.plot(loads, goodput, "-o", color=colour, label=who)
        waits.plot(loads, wait, "--", color=colour)
    panel.set(ylim=(0, 110), xlabel="load, as a multiple of capacity", ylabel="goodput, % (solid)")
    waits.set(ylim=(0, None), ylabel="median wait, ms (dashed)")
    waits.spines[["top"]].set_visible(False)
    panel.set_title("Overload: CoDel against a plain queue")
    panel.legend(frameon=False, loc="center right")
