"""The web app as its users and its supervisor see it: from outside, over HTTP and signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

APP = Path(__file__).parents[2] / "examples" / "web_app.py"
PATIENCE = 60.0


@dataclass
class Server:
    process: subprocess.Popen[str]
    address: str = ""

    def get(self, path: str) -> tuple[int, dict[str, Any]]:
        connection = HTTPConnection(self.address, timeout=PATIENCE)
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def hashers(self) -> list[int]:
        """The processes that the pool has started and that live."""
        return [pid for pid, parent in parents() if parent == self.process.pid]

    def stop(self, number: signal.Signals) -> tuple[int, str, str]:
        self.process.send_signal(number)
        output, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, output, errors


def parents() -> Iterator[tuple[int, int]]:
    """Yield each process that there is, and its parent; from the kernel, for `ps` may not be installed."""
    if not Path("/proc/self/stat").exists():
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        yield from ((int(pid), int(parent)) for pid, parent in map(str.split, listed.splitlines()))
        return
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            pid, rest = stat.read_text().split(" ", 1)
            yield int(pid), int(rest.rpartition(")")[2].split()[1])


@contextmanager
def serving(*arguments: str) -> Generator[Server]:
    command = [sys.executable, "-W", "error", str(APP), "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        server = Server(process)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("listening on "), process.communicate()
            server.address = urlsplit(line.split()[-1]).netloc
            yield server
        finally:
            process.kill()


def wait_until(condition: Callable[[], object]) -> None:
    """Look until it is so; only a server that never gets there fails."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_works_through_the_pool_and_tells_its_figures() -> None:
    with serving() as server:
        status, answer = server.get("/?text=two%0Alines")
        assert (status, answer["sha256"]) == (200, sha256(b"two\nlines").hexdigest())
        assert answer["process"] in server.hashers()
        status, health = server.get("/health")
        assert (status, health["healthy"], health["breaker"]) == (200, True, "closed")
        assert (health["started"], health["size"], health["leased"]) == (1, 1, 0)
        assert [server.get(path)[0] for path in ("/nowhere", "/?seconds=-1", "/?seconds=11")] == [404, 400, 400]
        code, output, errors = server.stop(signal.SIGINT)
        assert (code, output.splitlines()[-1]) == (0, "closed"), errors


def test_requests_share_the_pool() -> None:
    with serving() as server, ThreadPoolExecutor(12) as clients:
        answers = list(clients.map(lambda number: server.get(f"/?text={number}"), range(12)))
        assert [status for status, _ in answers] == [200] * 12
        assert [answer["sha256"] for _, answer in answers] == [sha256(b"%d" % n).hexdigest() for n in range(12)]
        assert 1 <= len({answer["process"] for _, answer in answers}) <= 4


def test_sigterm_finishes_the_requests_in_flight_and_leaves_nothing_running() -> None:
    with serving() as server, ThreadPoolExecutor(2) as clients:
        slow = [clients.submit(server.get, f"/?text={text}&seconds=2") for text in ("one", "two")]
        wait_until(lambda: server.get("/health")[1]["leased"] == 2)
        hashers = server.hashers()
        assert len(hashers) >= 2
        assert not any(future.done() for future in slow)
        code, output, errors = server.stop(signal.SIGTERM)
        answers = [future.result() for future in slow]
        assert [status for status, _ in answers] == [200, 200]
        assert [answer["sha256"] for _, answer in answers] == [sha256(text).hexdigest() for text in (b"one", b"two")]
        assert (code, output.splitlines()) == (
            0,
            [f"finishing the requests in flight after signal {int(signal.SIGTERM)}", "closed"],
        ), errors
        assert [pid for pid in hashers if is_alive(pid)] == []


def test_a_hasher_that_is_killed_costs_its_request_alone() -> None:
    with serving() as server:
        (first,) = server.hashers()
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: server.get("/health")[1]["lost"] == 1)
        status, answer = server.get("/?text=hello")
        assert status == 200
        assert answer["process"] != first


def test_health_fails_while_no_hasher_can_be_started(tmp_path: Path) -> None:
    interpreter = tmp_path / "python"
    interpreter.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    interpreter.chmod(0o755)
    with serving("--interpreter", str(interpreter)) as server:
        (only,) = server.hashers()
        spoilt = interpreter.rename(tmp_path / "gone")
        os.kill(only, signal.SIGKILL)
        wait_until(lambda: server.get("/health")[0] == 503)
        wait_until(lambda: server.get("/?text=hello")[0] == 503)
        spoilt.rename(interpreter)
        wait_until(lambda: server.get("/health")[0] == 200 and server.get("/?text=hello")[0] == 200)
        code, _, errors = server.stop(signal.SIGTERM)
        assert code == 0, errors


def test_does_not_start_without_hashers() -> None:
    command: list[str | Path] = [sys.executable, APP, "--port", "0", "--interpreter", "/nonexistent"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    assert "no resource can be opened" in done.stderr
    assert "closed" not in done.stdout
