"""The server's process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from nimblepool_grpc._core import CoreCall, CoreChannel

PATIENCE: Final = 10.0
"""Seconds within which anything that works has happened; nearly everything takes a thousandth of that."""
_PROGRAM: Final = Path(__file__).with_name("server.py")


class Server:
    """Runs from entering until leaving, or until it is killed."""

    def __init__(self, port: int = 0) -> None:
        self._wanted = f"127.0.0.1:{port}"

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, str(_PROGRAM), self._wanted], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.target = f"127.0.0.1:{self.port}"
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


async def until(condition: Callable[[], object]) -> None:
    """Wait for what another process or thread does."""
    while not condition():  # noqa: ASYNC110 - nothing here could set an event
        await trio.sleep(0.001)


def method(name: str) -> bytes:
    return f"/test.Test/{name}".encode()


async def ask(channel: CoreChannel, name: str, request: bytes = b"") -> bytes:
    """Make a unary call that works."""
    call = channel.call(method(name))
    response = await call.unary_unary(request, ())
    assert response is not None, call.status_now
    return response


async def report(channel: CoreChannel) -> dict[str, int]:
    """Return the server's counts of hanging calls: running, cancelled."""
    counts: dict[str, int] = json.loads(await ask(channel, "Report"))
    return {"running": counts.get("running", 0), "cancelled": counts.get("cancelled", 0)}


def open_stream(channel: CoreChannel, number: int, then: str = "end", size: int = 0) -> CoreCall:
    """Start a stream of so many messages."""
    call = channel.call(method("Count"))
    call.start_unary_stream(json.dumps([number, size, then]).encode(), ())
    return call


def batches_left(channel: CoreChannel) -> int:
    """How many batches of calls the core holds."""
    reactor: Any = channel._reactor
    return int(reactor.begun - reactor.ended - reactor.watches)
