"""A process that times contenders when asked: ``python -m benchmarks.child CORE MODULE...``.

It answers each line of JSON on its standard input with a line of JSON on its standard output. Peers get a process of
their own, so that no library changes what another one runs on.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from typing import TYPE_CHECKING

from .stopwatch import time_once

if TYPE_CHECKING:
    from .contender import Contender

PATIENCE = 180
"""Seconds after which a sample is given up: the alarm ends the process."""


def main(arguments: list[str]) -> None:
    """Say hello with the versions, then serve until the input ends."""
    core, *names = arguments
    pin(int(core))
    try:
        modules = [importlib.import_module(f"benchmarks.contenders.{name}") for name in names]
    except ImportError as error:
        say(error=f"not installed ({error})")
        return
    contenders: dict[str, Contender] = {}
    for module in modules:
        contenders |= module.CONTENDERS
    say(versions={name: module.VERSION for name, module in zip(names, modules, strict=True)}, names=list(contenders))
    for line in sys.stdin:
        serve(contenders, json.loads(line))


def serve(contenders: dict[str, Contender], request: dict[str, str | int]) -> None:
    """Answer one request."""
    size, tasks, leases = (int(request[key]) for key in ("size", "tasks", "leases"))
    signal.alarm(PATIENCE)
    try:
        say(seconds=time_once(contenders[str(request["contender"])], size=size, tasks=tasks, leases=leases))
    except Exception as error:  # noqa: BLE001 - a peer that fails is dropped, with the reason
        say(error=f"{type(error).__name__}: {error}")
    signal.alarm(0)


def pin(core: int) -> None:
    """Stay on one core, where the system can do that; -1 for any."""
    if core >= 0:
        os.sched_setaffinity(0, {core})


def say(**answer: object) -> None:
    """Write one line."""
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
