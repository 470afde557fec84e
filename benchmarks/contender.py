"""What is timed: something that lends, and a client that borrows from it in a loop."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Client: TypeAlias = Callable[[int], Awaitable[None]]
"""Borrows and gives back so many times. The loop is inside, so that no call comes between two leases."""

Opener: TypeAlias = Callable[[int], AbstractAsyncContextManager[Client]]
"""Opens a pool of so many resources (or keys), and says how a client uses it."""


@dataclass(frozen=True)
class Contender:
    """One side of a comparison."""

    loop: Literal["trio", "asyncio"]
    open: Opener


def load_peer(module: str) -> Any:  # noqa: ANN401 - peers are installed in the benchmarks' environment only
    """Import a peer. Type checkers run where peers are not installed, so what it offers is ``Any``."""
    return importlib.import_module(module)
