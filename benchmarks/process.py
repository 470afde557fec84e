"""The processes that time, seen from the one that asks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from .load import Load
from .measure import Dropped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass
class Process:
    """One child."""

    commands: IO[str]
    answers: IO[str]
    versions: dict[str, str] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)

    def greet(self) -> None:
        """Hear who is there.

        Raises:
            Dropped: it cannot work.
        """
        hello = self._hear()
        self.versions = hello["versions"]
        self.names = hello["names"]

    def sampler(self, contender: str, *, tasks: int, leases: int, size: int = 10) -> Callable[[], float]:
        """Return a function that times ``contender`` once and returns the microseconds a lease."""

        def sample() -> float:
            seconds: float = self._ask(contender=contender, size=size, tasks=tasks, leases=leases)["seconds"]
            return seconds / (tasks * leases) * 1e6

        return sample

    def loader(
        self, caller: str, setting: dict[str, Any], *, tasks: int, requests: int, warm_up: int
    ) -> Callable[[], Load]:
        """Return a function that puts a load on a server once, through ``caller``."""

        def sample() -> Load:
            answer = self._ask(contender=caller, setting=setting, tasks=tasks, requests=requests, warm_up=warm_up)
            return Load(**answer)

        return sample

    def _ask(self, **request: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        self.commands.write(json.dumps(request) + "\n")
        self.commands.flush()
        return self._hear()

    def _hear(self) -> dict[str, Any]:
        line = self.answers.readline()
        if not line:
            raise Dropped("its process ended without an answer")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Dropped(answer["error"])
        return answer


def chosen_core() -> int:
    """Return the core on which all children run, the last that this process may use; -1 where that cannot be set."""
    return max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else -1


def servers_core() -> int:
    """Return the core on which servers run: another one than the children's, if there are two."""
    return min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else -1


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Pin this process in the block, and with it, for good, the processes that it starts there; -1 for any core."""
    if core < 0:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def open_process(*modules: str) -> Iterator[Process]:
    """Start a child for these modules of ``benchmarks.contenders``.

    Raises:
        Dropped: one of them cannot be imported.
    """
    command = [sys.executable, "-m", "benchmarks.child", str(chosen_core()), *modules]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:  # noqa: S603 - this interpreter, this package
        assert child.stdin is not None  # noqa: S101 - PIPE was asked for
        assert child.stdout is not None  # noqa: S101 - likewise
        process = Process(child.stdin, child.stdout)
        process.greet()
        yield process
