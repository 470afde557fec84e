"""The picture for the README: six panels, from the sections that were measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .contender import load_peer
from .database import FULL, OUR_POOL
from .http_clients import OUR_CLIENTS
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
    panels = pyplot.subplots(3, 2, figsize=(13, 13.5), layout="constrained")
    figure, ((crowds, peers), (shape, storm), (queries, requests)) = panels
    _draw_crowds(crowds, sections["lending"])
    _draw_peers(peers, sections["peers"])
    _draw_shape(shape, sections["shape"])
    _draw_storm(storm, sections["overload"])
    _draw_queries(queries, sections["database"])
    _draw_requests(requests, sections["http"])
    for panel in (crowds, peers, shape, storm, queries, requests):
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
    bars = {row.against: row.theirs.median for row in section.rows if row.theirs and "alone" not in row.against}
    bars[first.case] = first.ours.median
    _draw_bars(panel, sorted(bars.items(), key=lambda bar: -bar[1]), ours={first.case}, form="{:.1f}")
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


def _draw_queries(panel: Any, section: Section) -> None:  # noqa: ANN401 - the same
    bars = [(name, points[0][1]) for name, points in section.series.items()]
    _draw_bars(panel, sorted(bars, key=lambda bar: bar[1]), ours={OUR_POOL}, form="{:,.0f}")
    panel.set(xlabel="queries a second")
    panel.set_title(f"SELECT 1 to a real PostgreSQL, {FULL} connections")


def _draw_requests(panel: Any, section: Section) -> None:  # noqa: ANN401 - the same
    for (name, points), colour in zip(section.series.items(), COLOURS, strict=False):
        sizes, rates = zip(*points, strict=True)
        panel.plot(sizes, rates, "-o" if name in OUR_CLIENTS else ":o", label=name, color=colour)
    panel.set(xscale="log", yscale="log", xlabel="tasks on 100 connections", ylabel="requests a second")
    panel.set_title("GET from a local server (dotted: others)")
    panel.legend(frameon=False, loc="lower left")


def _draw_bars(panel: Any, bars: list[tuple[str, float]], *, ours: set[str], form: str) -> None:  # noqa: ANN401 - the same
    values = [value for _, value in bars]
    drawn = panel.barh([name for name, _ in bars], values, color=[OURS if name in ours else THEIRS for name, _ in bars])
    panel.bar_label(drawn, labels=[form.format(value) for value in values], padding=3)
