"""Clients of a gRPC server on another core: our pool of channels, and grpc.aio on asyncio and on uvloop."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .measure import Dropped
from .section import Section
from .servers.messages import COUNT, PAUSE, STREAM_LIMIT
from .servers.targets import BOTH, REQUESTS, RESPONSES, SLOW, UNARY, open_targets
from .trials import Case, Trials, describe_spread, run_trials

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .load import Load
    from .section import Effort, Row
    from .servers.targets import Target

OURS, AIO, AIO_UVLOOP = "PooledChannel", "grpc.aio", "grpc.aio, uvloop"
CLIENTS: tuple[str, ...] = (OURS, AIO, AIO_UVLOOP)
MODULES = ("rpc.nimble_grpc", "rpc.aio_asyncio", "rpc.aio_uvloop")

STREAMING = (RESPONSES, REQUESTS, BOTH)
CROWDS = (1, 10, 100, 1_000)
ROUNDS = 9
"""At most: there are many cases."""
CALLS = 1_500
"""In a sample, by all tasks together."""
STREAMS = (1, 10)
MESSAGES = 2_000
"""In a sample, in all streams together; but at least one stream of each task."""
CHANNELS = (1, 2, 4, 8)
SLOW_CALLS = 400


def _unary(tasks: int) -> str:
    return f"{UNARY}, {tasks:,} {'task' if tasks == 1 else 'tasks'}"


def _streaming(way: str, streams: int) -> str:
    return f"{way}, {streams} at a time"


def _slow(channels: int) -> str:
    return f"{SLOW_CALLS} slow calls, {channels} {'channel' if channels == 1 else 'channels'}"


GOALS: Mapping[str, float] = {
    _unary(1): 0.95,
    _unary(10): 1.0,
    _unary(100): 1.0,
    _streaming(RESPONSES, 1): 0.8,
    _streaming(RESPONSES, 10): 1.0,
}
"""Against grpc.aio on asyncio's own loop."""


def measure_grpc(effort: Effort) -> Section:
    """Compare the clients in all cases."""
    section = Section("grpc", "Calls to a local gRPC server on another core, messages of 16 bytes: wall time")
    trials = Trials()
    rounds = min(effort.rounds, ROUNDS)
    try:
        with open_targets() as targets:
            trials = run_trials(section, MODULES, list(_cases(effort, targets)), rounds)
        section.notes.append(_describe_server(targets))
    except Dropped as reason:
        section.notes.append(f"left out: all: {reason}")
    _count_messages(trials)
    section.rows += _rows(trials)
    section.details = trials.tabulate()
    section.notes += [*trials.open, describe_spread(section.rows), *_describe_slow(trials)]
    section.notes += [
        f"{rounds} rounds",
        f"A stream has {COUNT} messages, each of which counts as an answer; both ways, with the one that answers it.",
        f"Slow calls take {PAUSE} s, all begin at once, and their server allows {STREAM_LIMIT} on a connection.",
    ]
    return section


def _cases(effort: Effort, targets: Mapping[str, Target]) -> Iterator[Case]:
    for tasks in CROWDS if effort.full else CROWDS[:3]:
        setting = {"target": targets[UNARY].address, "way": UNARY}
        yield Case(_unary(tasks), setting, tasks, dict.fromkeys(CLIENTS, effort.leases(tasks, CALLS, least=1)))
    for way in STREAMING:
        setting = {"target": targets[way].address, "way": way}
        for streams in STREAMS:
            each = effort.leases(streams, MESSAGES // COUNT, least=1)
            yield Case(_streaming(way, streams), setting, streams, dict.fromkeys(CLIENTS, each))
    for channels in CHANNELS if effort.full else ():
        slow = {"target": targets[SLOW].address, "way": UNARY, "channels": channels}
        yield Case(_slow(channels), slow, SLOW_CALLS, dict.fromkeys(CLIENTS, 1), warm_up=0, once=True)


def _count_messages(trials: Trials) -> None:
    """Let each message of a stream count, in place of the stream; and what a whole stream takes, not at all."""
    for way in STREAMING:
        for streams in STREAMS:
            for client in CLIENTS:
                key = (_streaming(way, streams), client)
                if key in trials.loads:
                    trials.loads[key] = [_by_message(load) for load in trials.loads[key]]


def _by_message(load: Load) -> Load:
    return replace(load, answered=load.answered * COUNT, errors=load.errors * COUNT, p50=None, p99=None)


def _rows(trials: Trials) -> Iterator[Row]:
    streaming = (_streaming(way, streams) for way in STREAMING for streams in STREAMS)
    for case in (*map(_unary, CROWDS), *streaming):
        yield from trials.rate_row(case, OURS, AIO, GOALS.get(case))
        yield from trials.rate_row(case, OURS, AIO_UVLOOP)


def _describe_server(targets: Mapping[str, Target]) -> str:
    costs = ", ".join(f"{kind} {target.cost:.1f} µs" for kind, target in targets.items() if target.cost)
    return f"The server's CPU time for a message, in the mean: {costs}."


def _describe_slow(trials: Trials) -> Iterator[str]:
    for client in CLIENTS:
        loads = {channels: trials.loads.get((_slow(channels), client)) for channels in CHANNELS}
        found = [_outcome(channels, *found) for channels, found in loads.items() if found]
        if found:
            yield f"{SLOW_CALLS} slow calls, {client}: {'; '.join(found)}."


def _outcome(channels: int, load: Load) -> str:
    errors = f", {load.errors} failed" if load.errors else ""
    return f"{channels} {'channel' if channels == 1 else 'channels'} {load.seconds:.2f} s{errors}"
