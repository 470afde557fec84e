"""The WebSocket server's process, seen from the one that asks."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.measure import Dropped
from benchmarks.process import on_core, servers_core

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class EchoServer:
    """Where it listens; and, once it has ended, the processor time that each answer took it, in microseconds."""

    url: str
    cost: float = 0.0


@contextmanager
def open_echo() -> Iterator[EchoServer]:
    """Run the server for a block.

    Raises:
        Dropped: it does not start.
    """
    command = [sys.executable, "-m", "benchmarks.servers.websocket"]
    with on_core(servers_core()):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - this interpreter, this package
    with process:
        assert process.stdin is not None  # noqa: S101 - PIPE was asked for
        assert process.stdout is not None  # noqa: S101 - likewise
        port = process.stdout.readline().strip()
        if not port:
            raise Dropped("the WebSocket server does not start")
        server = EchoServer(f"ws://127.0.0.1:{port}/")
        try:
            yield server
        finally:
            process.stdin.close()
            server.cost = _cost(process.stdout.readline())


def _cost(line: str) -> float:
    account = json.loads(line or "{}")
    return account["seconds"] / account["sent_back"] * 1e6 if account.get("sent_back") else 0.0
