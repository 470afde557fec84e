"""The gRPC servers' processes, one for each kind of call, seen from the one that asks."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.measure import Dropped
from benchmarks.process import on_core, servers_core

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

UNARY, RESPONSES, REQUESTS, BOTH, SLOW = "unary", "response stream", "request stream", "both ways", "slow"
PROGRAMS: Mapping[str, tuple[str, ...]] = {
    **{kind: ("benchmarks.servers.rpc", kind) for kind in (UNARY, RESPONSES, REQUESTS, BOTH)},
    SLOW: ("benchmarks.servers.slow_rpc",),
}


@dataclass
class Target:
    """Where one listens; and, once it has ended, the processor time that each message took it, in microseconds.

    The slow one does not say.
    """

    address: str
    cost: float = 0.0


@contextmanager
def open_targets() -> Iterator[dict[str, Target]]:
    """Run a server of each kind for a block.

    Raises:
        Dropped: one does not start.
    """
    with ExitStack() as stack:
        yield {kind: stack.enter_context(_open_target(*program)) for kind, program in PROGRAMS.items()}


@contextmanager
def _open_target(*program: str) -> Iterator[Target]:
    command = [sys.executable, "-m", *program]
    with on_core(servers_core()):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - this interpreter, this package
    with process:
        assert process.stdin is not None  # noqa: S101 - PIPE was asked for
        assert process.stdout is not None  # noqa: S101 - likewise
        port = process.stdout.readline().strip()
        if not port:
            raise Dropped(f"this gRPC server does not start: {' '.join(program)}")
        target = Target(f"127.0.0.1:{port}")
        try:
            yield target
        finally:
            process.stdin.close()
            target.cost = _cost(process.stdout.readline())


def _cost(line: str) -> float:
    account = json.loads(line or "{}")
    return account["seconds"] / account["messages"] * 1e6 if account.get("messages") else 0.0
