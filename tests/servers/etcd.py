"""A real etcd as a child process of the tests, from Debian's package."""

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from tests.servers.process import PATIENCE, account, free_port, give_to, program, wait_until


class Etcd:
    """One member, which keeps what it was told when it is killed and started again.

    Use it in a ``with`` block, which leaves no process and no file behind.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self._peers = free_port()
        self._program = program("etcd")
        self._directory = Path(tempfile.mkdtemp(prefix="nimblepool-etcd-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def start(self) -> None:
        """Start it, and return when it takes connections."""
        client, peers = f"http://{self.target}", f"http://127.0.0.1:{self._peers}"
        command: list[str | Path] = [
            self._program, "--name=one", f"--data-dir={self._directory / 'data'}", "--unsafe-no-fsync=true",
            f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}", f"--initial-cluster=one={peers}",
        ]  # fmt: skip
        give_to(account(), self._directory)
        with (self._directory / "output").open("ab") as output:
            self._process = subprocess.Popen[bytes](
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **account()
            )
        wait_until(self._answers, lambda: f"etcd does not start:\n{self._complaints()}")

    def kill(self) -> None:
        process, self._process = self._process, None
        assert process is not None, "it is not running"
        process.kill()
        process.wait(PATIENCE)

    def remove(self) -> None:
        """Kill it if it runs, and delete its files."""
        try:
            if self._process is not None:
                self.kill()
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"it has ended:\n{self._complaints()}"
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", self.port)) == 0:
                return True
        time.sleep(0.02)
        return False

    def _complaints(self) -> str:
        return (self._directory / "output").read_text(errors="replace")
