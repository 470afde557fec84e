"""Clients of a WebSocket server on another core: our pools, bare connections of `websockets`, and trio-websocket."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from .measure import Dropped
from .section import Section
from .servers.echo import open_echo
from .trials import Case, Trials, describe_spread, run_trials

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .section import Effort, Row

LEASED, HELD, SHARED = "connection()", "connection(), held", "request()"
BARE, OTHER = "websockets", "trio-websocket"
MODULES = ("websocket.nimble_websockets", "websocket.websockets_trio", "websocket.trio_websocket_trio")
PAIRS = tuple((ours, theirs) for ours in (LEASED, HELD, SHARED) for theirs in (BARE, OTHER))

CROWDS = ((1, 1), (10, 10), (100, 10), (100, 100), (1_000, 100))
"""Requests in flight, and sockets. More than 100 sockets would measure how they are opened and closed."""
REQUESTS = 2_000
"""In a sample, by all tasks together."""
WARM_UP = 2
"""Of each of up to 100 tasks."""


def _on(tasks: int, sockets: int) -> str:
    return f"{tasks:,} in flight, {sockets} {'socket' if sockets == 1 else 'sockets'}"


GOALS: Mapping[tuple[str, str, str], float] = {
    (_on(1, 1), LEASED, BARE): 0.97,
    (_on(10, 10), LEASED, BARE): 0.97,
    (_on(100, 10), SHARED, BARE): 0.95,
}


def measure_websocket(effort: Effort) -> Section:
    """Compare the clients in all cases."""
    section = Section("websocket", "A short text message echoed by a local server on another core: wall time")
    trials = Trials()
    try:
        with open_echo() as server:
            trials = run_trials(section, MODULES, list(_cases(effort, server.url)), effort.rounds)
        section.notes.append(f"The server's CPU time for an answer: {server.cost:.0f} µs, in the mean.")
    except Dropped as reason:
        section.notes.append(f"left out: all: {reason}")
    section.rows += _rows(trials)
    section.details = trials.tabulate()
    section.notes += [*trials.open, describe_spread(section.rows)]
    section.notes.append(f'"{LEASED}": a lease for each request; "{HELD}": one for all; "{SHARED}": all on one socket.')
    section.notes.append(
        "Where fewer sockets than tasks are bare or held, each has a lock, and they are asked in turn."
    )
    section.series = _series(trials)
    return section


def _cases(effort: Effort, url: str) -> Iterator[Case]:
    for tasks, sockets in CROWDS if effort.full else CROWDS[:3]:
        setting = {"url": url, "sockets": sockets, "tasks": tasks}
        # To hold a lease for many tasks is what nobody does.
        clients = (LEASED, BARE, SHARED, OTHER, *((HELD,) if tasks == sockets else ()))
        each = effort.leases(tasks, REQUESTS, least=2)
        yield Case(_on(tasks, sockets), setting, tasks, dict.fromkeys(clients, each), WARM_UP)


def _rows(trials: Trials) -> Iterator[Row]:
    for tasks, sockets in CROWDS:
        case = _on(tasks, sockets)
        for ours, theirs in PAIRS:
            yield from trials.rate_row(case, ours, theirs, GOALS.get((case, ours, theirs)))


def _series(trials: Trials) -> dict[str, list[tuple[float, float]]]:
    """Return the rates over the number of requests in flight, with as many sockets as serve most."""
    series: dict[str, list[tuple[float, float]]] = {}
    for client in (LEASED, HELD, SHARED, BARE, OTHER):
        for tasks, sockets in CROWDS:
            loads = trials.loads.get((_on(tasks, sockets), client))
            if loads and (tasks, sockets) != (100, 10):
                series.setdefault(client, []).append((tasks, median(load.rate for load in loads)))
    return series
