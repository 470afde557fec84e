"""The transport for httpx is imported when it is first used: who has httpx2 alone can do without httpx."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

PACKAGE = __name__.rpartition(".")[0]
NAME = "PooledTransport"


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class
    if name != NAME:
        raise AttributeError(f"module {PACKAGE!r} has no attribute {name!r}")
    found = getattr(import_module("._httpx", PACKAGE), NAME)
    setattr(sys.modules[PACKAGE], NAME, found)
    return found


def __dir__() -> list[str]:
    return sorted({*vars(sys.modules[PACKAGE]), NAME})
