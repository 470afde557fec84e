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
from dataclasses import asdict
from typing import Any, TypeAlias

from .contender import Caller, Contender, Program
from .load import put_load
from .stopwatch import time_once

Side: TypeAlias = Contender | Caller | Program

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
    except Exception as error:  # noqa: BLE001 - what has no version, or not the name we know
        say(error=f"{type(error).__name__}: {error}")
        return
    sides: dict[str, Side] = {}
    for module in modules:
        sides |= module.CONTENDERS
    say(versions={name: module.VERSION for name, module in zip(names, modules, strict=True)}, names=list(sides))
    for line in sys.stdin:
        serve(sides, json.loads(line))


def serve(sides: dict[str, Side], request: dict[str, Any]) -> None:
    """Answer one request."""
    signal.alarm(PATIENCE)
    try:
        say(**measure(sides[request.pop("contender")], **request))
    except Exception as error:  # noqa: BLE001 - a peer that fails is dropped, with the reason
        say(error=f"{type(error).__name__}: {error}")
    signal.alarm(0)


def measure(side: Side, **request: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Take one sample."""
    if isinstance(side, Contender):
        return {"seconds": time_once(side, **request)}
    if isinstance(side, Caller):
        return asdict(put_load(side, **request))
    return asdict(side.run(tasks=request["tasks"], requests=request["requests"], **request["setting"]))


def pin(core: int) -> None:
    """Stay on one core, where the system can do that; -1 for any."""
    if core >= 0:
        os.sched_setaffinity(0, {core})


def say(**answer: object) -> None:
    """Write one line."""
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
