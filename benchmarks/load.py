"""Put a load on a server once, through one of its clients, in the process in which this runs.

Such a client waits for the server, so the clock is wall time. The server has another core than the client, if there
are two: then a client that keeps the server waiting is measured, and not the server.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import trio

from .stopwatch import lap_asyncio, lap_trio

if TYPE_CHECKING:
    from .contender import Ask, Caller
    from .stopwatch import Time


@dataclass(frozen=True)
class Load:
    """What became of one load. Times are in seconds; ``cpu`` is the client's."""

    answered: int
    errors: int
    seconds: float
    cpu: float
    p50: float | None
    p99: float | None

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds

    @property
    def cost(self) -> float:
        """Microseconds an answer."""
        return self.seconds / self.answered * 1e6


class Log:
    """What became of each request."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.times: list[float] = []
        self.errors = 0
        self.first_error: Exception | None = None

    async def client(self, requests: int) -> None:
        """Ask so many times, one after the other. A failure counts, and the next request goes on."""
        ask, note = self._ask, self.times.append
        for _ in range(requests):
            began = perf_counter()
            try:
                await ask()
            except Exception as error:  # noqa: BLE001 - how many fail is one of the figures
                self.errors += 1
                self.first_error = self.first_error or error
            else:
                note(perf_counter() - began)

    def begin(self) -> None:
        """Forget the warm-up.

        Raises:
            Exception: what went wrong in it, if nothing went right.
        """
        if self.first_error is not None and not self.times:
            raise self.first_error
        self.times.clear()
        self.errors = 0
        self.first_error = None

    def summarize(self, time: Time) -> Load:
        """Return the figures.

        Raises:
            RuntimeError: no request was answered.
        """
        if not self.times:
            raise RuntimeError(f"no request was answered: {self.first_error!r}")
        times = sorted(self.times)
        count = len(times)
        return Load(count, self.errors, time.wall, time.cpu, times[count // 2], times[count * 99 // 100])


def put_load(caller: Caller, setting: dict[str, Any], *, tasks: int, requests: int, warm_up: int) -> Load:
    """Let ``tasks`` clients ask ``requests`` times each; before, up to 100 of them ``warm_up`` times, as a warm-up."""
    if caller.loop == "trio":
        return trio.run(_load_trio, caller, setting, tasks, requests, warm_up)
    with asyncio.Runner(loop_factory=_loop_factory(caller)) as runner:
        return runner.run(_load_asyncio(caller, setting, tasks, requests, warm_up))


async def _load_trio(caller: Caller, setting: dict[str, Any], tasks: int, requests: int, warm_up: int) -> Load:
    async with caller.open(**setting) as ask:
        log = Log(ask)
        await lap_trio(log.client, min(tasks, 100), warm_up)
        log.begin()
        return log.summarize(await lap_trio(log.client, tasks, requests))


async def _load_asyncio(caller: Caller, setting: dict[str, Any], tasks: int, requests: int, warm_up: int) -> Load:
    check_loop(caller.loop)
    async with caller.open(**setting) as ask:
        log = Log(ask)
        await lap_asyncio(log.client, min(tasks, 100), warm_up)
        log.begin()
        return log.summarize(await lap_asyncio(log.client, tasks, requests))


def check_loop(name: str) -> None:
    """Make sure that asyncio's running loop is the one that is to be measured: a library may have replaced it.

    Raises:
        RuntimeError: it is another one.
    """
    kind = type(asyncio.get_running_loop())
    if kind.__module__.partition(".")[0] != name:
        raise RuntimeError(f"to be measured on {name}, but the event loop is {kind.__module__}.{kind.__qualname__}")


def _loop_factory(caller: Caller) -> Any:  # noqa: ANN401 - uvloop is a peer
    if caller.loop == "asyncio":
        return None
    from .contender import load_peer  # noqa: PLC0415 - only this child needs it

    return load_peer("uvloop").new_event_loop
