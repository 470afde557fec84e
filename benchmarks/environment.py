"""On what was measured."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

from .process import chosen_core, servers_core
from .stopwatch import GC_STATE


def describe_environment() -> dict[str, str]:
    """Return what a reader must know to judge the figures."""
    core = chosen_core()
    return {
        "nimblepool": version("nimblepool"),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "trio": version("trio"),
        "system": platform.system(),
        "CPU": f"{_cpu_model()}, {os.cpu_count()} cores",
        "pinned to": f"core {core}" if core >= 0 else "no core: this system cannot",
        "servers on": f"core {servers_core()}" if core >= 0 else "no core: this system cannot",
        "clock": "CPU time of the process; wall time where a server or a file answers",
        "gc": GC_STATE,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
