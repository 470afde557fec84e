"""Clients of a real server side by side: every one in every case, in turns, and the tables that come of it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, TypeAlias

from .measure import Dropped, compare, interleave, summarize
from .process import open_process
from .section import Row, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .load import Load
    from .process import Process
    from .section import Section

Key: TypeAlias = tuple[str, str]
"""A case and a client."""

HEADER = ("case", "client", "answers/s", "p50", "p99", "errors", "CPU each")


@dataclass(frozen=True)
class Case:
    """What is asked of some clients: ``requests`` says by each of the ``tasks`` how often, for each client.

    ``setting`` is what their openers take. ``warm_up`` requests of each of up to 100 tasks go before. What is asked
    ``once`` says what happens, not how long it takes: it has no rounds, and no ratio comes of it.
    """

    name: str
    setting: Mapping[str, Any]
    tasks: int
    requests: Mapping[str, int]
    warm_up: int = 1
    once: bool = False


@dataclass
class Trials:
    """What was found, by case and client; those who failed are missing.

    A ratio is made only of two who answered every request. ``open`` names the budgets for which there is none.
    """

    loads: dict[Key, list[Load]] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)

    def time_row(self, case: str, ours: str, theirs: str, most: float | None = None) -> list[Row]:
        """Return a row of the wall time for each answer, or none where there is no ratio."""
        return self._row(case, ours, theirs, lambda load: load.cost, "µs", most=most)

    def rate_row(self, case: str, ours: str, theirs: str, least: float | None = None) -> list[Row]:
        """Return a row of the answers a second, or none where there is no ratio."""
        return self._row(case, ours, theirs, lambda load: load.rate, "/s", least=least)

    def tabulate(self) -> Table:
        """Return every figure: the medians of the rounds."""
        return Table(HEADER, [_line(case, client, loads) for (case, client), loads in self.loads.items()])

    def _row(
        self,
        case: str,
        ours: str,
        theirs: str,
        figure: Callable[[Load], float],
        unit: str,
        *,
        most: float | None = None,
        least: float | None = None,
    ) -> list[Row]:
        sides = [self.loads.get((case, name)) for name in (ours, theirs)]
        if not all(side and not any(load.errors for load in side) for side in sides):
            if (most, least) != (None, None):
                self.open.append(f"no ratio, so this budget is open: {case}: {ours} against {theirs}")
            return []
        our, their = ([figure(load) for load in side or ()] for side in sides)
        ratio = compare(our, their)
        return [Row(f"{case}: {ours}", summarize(our), theirs, summarize(their), ratio, most, unit, least)]


def run_trials(section: Section, modules: Iterable[str], cases: Sequence[Case], rounds: int) -> Trials:
    """Put all loads, interleaved; note in the section who could not take part, and the versions of those who did.

    Args:
        section: takes versions and notes.
        modules: of ``benchmarks.contenders``; each gets a process of its own.
        cases: what to ask of whom.
        rounds: how many count.
    """
    with ExitStack() as stack:
        processes: dict[str, Process] = {}
        for module in modules:
            processes |= _enter(stack, module, section)
        repeated, single = (
            {
                (case.name, client): _loader(processes[client], case, client)
                for case in cases
                for client in case.requests
                if client in processes and case.once is once
            }
            for once in (False, True)
        )
        trials = _interleave(section, repeated, rounds)
        for key, load in single.items():
            try:
                trials.loads[key] = [load()]
            except Dropped as reason:
                _note_failures(section, {key: str(reason)})
        return trials


def _interleave(section: Section, sides: Mapping[Key, Callable[[], Load]], rounds: int) -> Trials:
    names = {": ".join(key): key for key in sides}
    dropped: dict[str, str] = {}
    samples = interleave({name: sides[key] for name, key in names.items()}, rounds, dropped)
    _note_failures(section, {names[name]: reason for name, reason in dropped.items()})
    return Trials({names[name]: loads for name, loads in samples.items()})


def _note_failures(section: Section, failures: Mapping[Key, str]) -> None:
    cases: dict[tuple[str, str], list[str]] = {}
    for (case, client), reason in failures.items():
        cases.setdefault((client, reason), []).append(case)
    section.notes += [f"left out: {client}: {reason} ({'; '.join(where)})" for (client, reason), where in cases.items()]


def describe_spread(rows: Sequence[Row]) -> str:
    """Say how far the rounds lie apart: wall time is noisy where other programs run."""
    spreads = [(row.ratio.upper - row.ratio.lower) / row.ratio.median for row in rows if row.ratio]
    if not spreads:
        return "nothing was compared"
    return (
        f"wall time: from the first to the third quartile of its rounds a ratio spreads by {median(spreads):.0%} "
        f"in the median row, and by {max(spreads):.0%} in the worst"
    )


def _enter(stack: ExitStack, module: str, section: Section) -> dict[str, Process]:
    try:
        process = stack.enter_context(open_process(module))
    except Dropped as reason:
        section.notes.append(f"left out: {module}: {reason}")
        return {}
    section.versions |= process.versions
    return dict.fromkeys(process.names, process)


def _loader(process: Process, case: Case, client: str) -> Callable[[], Load]:
    return process.loader(
        client, dict(case.setting), tasks=case.tasks, requests=case.requests[client], warm_up=case.warm_up
    )


def _line(case: str, client: str, loads: Sequence[Load]) -> tuple[str, ...]:
    cpu = median(load.cpu / load.answered for load in loads)
    return (
        case,
        client,
        f"{median(load.rate for load in loads):,.0f}",
        _milliseconds([load.p50 for load in loads]),
        _milliseconds([load.p99 for load in loads]),
        _errors(loads),
        f"{cpu * 1e6:,.0f} µs",
    )


def _milliseconds(times: Sequence[float | None]) -> str:
    known = [time for time in times if time is not None]
    return f"{median(known) * 1e3:,.2f} ms" if known else ""


def _errors(loads: Sequence[Load]) -> str:
    errors = median(load.errors for load in loads)
    return f"{errors:,.0f} of {loads[0].errors + loads[0].answered:,}" if errors else "0"
