"""What is timed: something that lends, and a client that borrows from it in a loop; or a client of a real server."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from .load import Load

Client: TypeAlias = Callable[[int], Awaitable[None]]
"""Borrows and gives back so many times. The loop is inside, so that no call comes between two leases."""

Opener: TypeAlias = Callable[[int], AbstractAsyncContextManager[Client]]
"""Opens a pool of so many resources (or keys), and says how a client uses it."""

Ask: TypeAlias = Callable[[], Awaitable[object]]
"""Asks the server once and reads its answer to the end."""


@dataclass(frozen=True)
class Contender:
    """One side of a comparison of pools."""

    loop: Literal["trio", "asyncio"]
    open: Opener


@dataclass(frozen=True)
class Caller:
    """One side of a comparison of clients of a server.

    ``open`` takes what is set for the case (the server's address, how many connections) by name, and opens the client.
    ``loop`` is the event loop's top-level module; the opener runs on it, or fails.
    """

    loop: Literal["trio", "asyncio", "uvloop"]
    open: Callable[..., AbstractAsyncContextManager[Ask]]


@dataclass(frozen=True)
class Program:
    """A program that puts a load on a server by itself; takes what is set for the case, ``tasks`` and ``requests``."""

    run: Callable[..., Load]


def load_peer(module: str) -> Any:  # noqa: ANN401 - peers are installed in the benchmarks' environment only
    """Import a peer. Type checkers run where peers are not installed, so what it offers is ``Any``."""
    return importlib.import_module(module)
