"""The server of `server.py` as a process of the tests."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

SERVER = Path(__file__).parent / "server.py"


class Echo:
    """The server of `server.py`, which can be killed and started again on the same port."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="nimblepool-websocket-"))
        self._process: subprocess.Popen[str] | None = None
        self.port = 0
        self.path = str(self._directory / "socket")

    @property
    def uri(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._directory)

    def start(self) -> None:
        Path(self.path).unlink(missing_ok=True)
        process = subprocess.Popen(
            [sys.executable, SERVER, str(self.port), self.path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        self._process = process
        self.port = int(process.stdout.readline())

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()
