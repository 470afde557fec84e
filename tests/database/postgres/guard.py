"""Cleans up after a test run, however it ends: run as a program by `server`, it waits for the end of its input.

The run holds the other end of the pipe. Its death closes that, even if it was killed, or ended itself without a word
because a test hung; then the servers that it left are killed and its directories deleted.
"""

import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil


def clean_up(prefix: str) -> None:
    """Kill the servers in all temporary directories whose names begin with ``prefix``, and delete these."""
    for directory in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(FileNotFoundError, psutil.NoSuchProcess):
            kill(psutil.Process(int((directory / "data/postmaster.pid").read_text().split()[0])), directory)
        shutil.rmtree(directory, ignore_errors=True)


def kill(server: psutil.Process, directory: Path) -> None:
    """Kill a server and its children, unless the number is another process's by now."""
    if str(directory / "data") not in server.cmdline():
        return
    server.suspend()
    for process in (*server.children(recursive=True), server):
        with suppress(psutil.NoSuchProcess):
            process.kill()


if __name__ == "__main__":
    sys.stdin.read()
    clean_up(sys.argv[1])
