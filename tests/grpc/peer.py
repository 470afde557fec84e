"""The server of `server.py` as a process of the tests."""

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import trio

SERVER: Final = Path(__file__).parent / "server.py"
PATIENCE: Final = 10.0
"""Seconds within which anything that works has happened; nearly everything takes a thousandth of that."""


@dataclass(frozen=True)
class Figures:
    """What the server tells about itself.

    Attributes:
        running: calls whose handlers have begun and not ended.
        begun: how many calls came over each connection.
        read: messages that it has read from streams.
        written: messages that it has written to streams.
        watching: calls of the health service's ``Watch`` that are running.
    """

    running: int
    begun: Counter[str]
    read: int
    written: int
    watching: int


class Server:
    """The server of `server.py`; it can be killed, stopped, and started again on the same port.

    Args:
        stubs: the directory of the generated modules.
        options: of grpcio's server.
        tls: the paths of its ``key``, its ``certificate``, and the ``authority`` of its clients.
        mutual: demand a certificate of the client.
        gzip: compress the replies.
        health: the status of each service; without any there is no health service.
    """

    def __init__(
        self,
        stubs: Path,
        *,
        options: Sequence[tuple[str, int]] = (),
        tls: Mapping[str, Path] | None = None,
        mutual: bool = False,
        gzip: bool = False,
        health: Mapping[str, str] | None = None,
    ) -> None:
        self.port = 0
        self._stubs = stubs
        self._configuration: dict[str, Any] = {
            # A port on which nobody else listens: a server that was killed must not be answered for by another one.
            "options": [*options, ("grpc.so_reuseport", 0)],
            "tls": None if tls is None else {name: str(path) for name, path in tls.items()},
            "mutual": mutual,
            "gzip": gzip,
            "health": dict(health or {}),
        }
        self._process: subprocess.Popen[str] | None = None

    @property
    def target(self) -> str:
        return f"{'127.0.0.1' if self._configuration['tls'] is None else 'localhost'}:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and return when it takes calls."""
        configuration = json.dumps({**self._configuration, "port": self.port})
        self._process = subprocess.Popen(
            [sys.executable, SERVER, self._stubs, configuration],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def freeze(self) -> None:
        """Let it do nothing more, and close nothing."""
        self._living().send_signal(signal.SIGSTOP)

    def figures(self) -> Figures:
        told = self._ask("figures")
        return Figures(told["running"], Counter(told["begun"]), told["read"], told["written"], told["watching"])

    def release(self) -> None:
        """Let what it holds go on; it holds nothing any more."""
        self._ask("release")

    def set_health(self, service: str, status: str) -> None:
        self._ask(f"health {service} {status}")

    def _ask(self, line: str) -> Any:  # noqa: ANN401 - what JSON holds
        process = self._living()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    def _living(self) -> "subprocess.Popen[str]":
        assert self._process is not None, "it is not running"
        return self._process


async def until(condition: Callable[[], object]) -> None:
    """Wait until the condition holds."""
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - nobody could set an event
            await trio.sleep(0.002)


async def nothing_runs(server: Server) -> None:
    """Wait until no call is left on the server."""
    await until(lambda: server.figures().running == 0)
