"""What the servers of the tests have in common: child processes of an account without rights, on free ports."""

import os
import pwd
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import trio

PATIENCE: Final = 30.0
"""Seconds within which a server that works has started or stopped; it takes less than one."""
# Not in the path of everybody, and that is where Debian puts servers.
PATH: Final = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def program(name: str) -> str:
    """Return where the program is."""
    path = shutil.which(name, path=PATH)
    assert path is not None, f"{name} is not installed: run `make test-servers`, or .ci/install-servers"
    return path


@cache
def account() -> Mapping[str, Any]:
    """Return what makes `subprocess` run a server under an account that it accepts: not as root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def give_to(owner: Mapping[str, Any], directory: Path) -> None:
    """Make the directory and what is in it the account's."""
    if "user" in owner:
        for path in (directory, *directory.rglob("*")):
            os.chown(path, owner["user"], owner["group"])


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that a thread, or a server, brings about; let other tasks go on."""
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - nobody could set an event
            await trio.sleep(0.01)


def wait_until(condition: Callable[[], bool], complaint: Callable[[], str]) -> None:
    """Wait until the condition holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(complaint())
        time.sleep(0.01)
