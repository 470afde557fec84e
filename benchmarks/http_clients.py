"""Clients of a web server on another core: httpx and httpx2, each with its own transport and with ours, and aiohttp."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from statistics import median
from typing import TYPE_CHECKING

from .measure import LEAST_ROUNDS, Dropped
from .section import Section
from .servers.origins import open_origins
from .trials import Case, Trials, describe_spread, run_trials

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .section import Effort, Row
    from .servers.origins import Origins

ROUNDS = LEAST_ROUNDS
"""httpx's own transport takes 6 ms of CPU time a request where many queue, so there are no more than there must be."""

HTTPX, HTTPX2, AIOHTTP = "httpx", "httpx2", "aiohttp"
OURS, OURS2 = "PooledTransport, httpx", "PooledTransport, httpx2"
OUR_CLIENTS = (OURS, OURS2)
CLIENTS = (OURS, HTTPX, OURS2, HTTPX2, AIOHTTP)
MODULES = ("web.httpx_pooled", "web.httpx_default", "web.httpx2_pooled", "web.httpx2_default", "web.aiohttp_asyncio")
PAIRS = ((OURS, HTTPX), (OURS2, HTTPX2), (OURS, AIOHTTP))

CROWDS = (1, 10, 100, 500, 1_000)
CONNECTIONS = (10, 100)
TOO_SLOW = {(500, 100)}
"""Tasks and connections where httpx's own transport is left out: it takes a minute, and 1,000 tasks say the same."""
REQUESTS = 400
"""In a sample, by all tasks together; but at least one by each."""
SLOW_REQUESTS = 100
"""The same for httpx's own transport where tasks queue for 100 connections."""

MANY, CROWDED = "50 origins, room for all", "50 origins x 100"
NEW, STREAMS, DEFAULTS = "a new origin each time", "HTTP/2", "all defaults"
ORIGINS = 50
AT_HAND = 500
"""Connections, so that none is closed to make room for another origin's."""
DRAWN = 1_000
"""How many of the origins are drawn, at random but always the same."""
NEW_REQUESTS = 200
NEW_ORIGINS = 210
"""One for each request, and for those of the warm-up."""


def _on(tasks: int, connections: int) -> str:
    return f"{tasks:,} {'task' if tasks == 1 else 'tasks'} x {connections}"


BUDGETS: Mapping[tuple[str, str], float] = {
    (_on(1, 10), HTTPX): 1.0,
    (_on(1, 100), HTTPX): 1.0,
    (_on(100, 100), HTTPX): 0.06,
    (_on(1_000, 100), HTTPX): 0.12,
    (_on(1_000, 100), HTTPX2): 0.65,
    (MANY, HTTPX2): 0.5,
}


def measure_http(effort: Effort) -> Section:
    """Compare the clients in all cases."""
    section = Section("http", "GET from a local server on another core, answered with 204: wall time for each answer")
    trials = Trials()
    try:
        with open_origins(NEW_ORIGINS) as origins:
            cases = _cases(effort, origins)
            trials = run_trials(section, MODULES, list(cases if effort.full else _without_slow(cases)), ROUNDS)
    except Dropped as reason:
        section.notes.append(f"left out: all: {reason}")
    section.rows += _rows(trials)
    section.details = trials.tabulate()
    section.notes += [*trials.open, describe_spread(section.rows), f"{ROUNDS} rounds"]
    section.notes.append(f'"{MANY}": 100 tasks, each request to another, drawn; {AT_HAND} connections in all.')
    section.notes.append(f'"{CROWDED}": the same with 100 connections, so that origins take them from each other.')
    section.notes.append(f'"{NEW}": 10 tasks, 100 connections; "{STREAMS}": 100 tasks on one connection with TLS.')
    section.notes.append(f'"{DEFAULTS}": 1,000 tasks, 2 requests each, without a warm-up; asked once.')
    section.series = _series(trials)
    return section


def _cases(effort: Effort, origins: Origins) -> Iterator[Case]:
    for connections in CONNECTIONS:
        setting = {"urls": origins.plain[:1], "connections": connections}
        for tasks in CROWDS if effort.full else CROWDS[::2]:
            requests = _requests(effort, tasks, queueing=tasks >= connections >= max(CONNECTIONS))
            if (tasks, connections) in TOO_SLOW:
                del requests[HTTPX]
            yield Case(_on(tasks, connections), setting, tasks, requests)
    drawn = Random(ORIGINS).choices(origins.plain[:ORIGINS], k=DRAWN)  # noqa: S311 - which origin comes next is no secret
    # Without httpx's own transport: it takes 7 ms a request there, and opening the connections alone takes hundreds.
    many: dict[str, int] = dict.fromkeys((OURS, OURS2, HTTPX2, AIOHTTP), effort.leases(100, REQUESTS, least=1))
    yield Case(MANY, {"urls": drawn, "connections": AT_HAND}, 100, many, warm_up=4)
    crowded = _requests(effort, 100, queueing=True)
    yield Case(CROWDED, {"urls": drawn, "connections": 100}, 100, crowded)
    new = {"urls": origins.plain, "connections": 100}
    yield Case(NEW, new, 10, dict.fromkeys(CLIENTS, effort.leases(10, NEW_REQUESTS)))
    streams = {"urls": [origins.secure], "connections": 1, "authority": origins.authority, "http2": True}
    yield Case(STREAMS, streams, 100, dict.fromkeys(CLIENTS[:4], effort.leases(100, REQUESTS, least=1)))
    defaults = {"urls": origins.plain[:1]}
    yield Case(DEFAULTS, defaults, 1_000, dict.fromkeys(CLIENTS, 2), warm_up=0, once=True)


def _without_slow(cases: Iterable[Case]) -> Iterator[Case]:
    """Leave httpx's own transport out where it takes long, for a quick run."""
    for case in cases:
        slow = {HTTPX} if case.tasks > SLOW_REQUESTS else set()
        yield replace(case, requests={client: each for client, each in case.requests.items() if client not in slow})


def _requests(effort: Effort, tasks: int, *, queueing: bool) -> dict[str, int]:
    """Return how often each of ``tasks`` asks; ``queueing`` where it takes httpx long to answer."""
    usual, slow = (effort.leases(tasks, total, least=1) for total in (REQUESTS, SLOW_REQUESTS))
    return {client: slow if queueing and client == HTTPX else usual for client in CLIENTS}


def _rows(trials: Trials) -> Iterator[Row]:
    crowds = [_on(tasks, connections) for connections in CONNECTIONS for tasks in CROWDS]
    for case in (*crowds, MANY, CROWDED, NEW, STREAMS):
        for ours, theirs in PAIRS:
            yield from trials.time_row(case, ours, theirs, BUDGETS.get((case, theirs)))


def _series(trials: Trials) -> dict[str, list[tuple[float, float]]]:
    """Return the rates over the number of tasks, on the most connections."""
    series: dict[str, list[tuple[float, float]]] = {}
    for client in CLIENTS:
        for tasks in CROWDS:
            loads = trials.loads.get((_on(tasks, max(CONNECTIONS)), client))
            if loads:
                series.setdefault(client, []).append((tasks, median(load.rate for load in loads)))
    return series
