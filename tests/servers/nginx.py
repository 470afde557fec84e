"""A real nginx as a child process of the tests, from Debian's package: a server of HTTP, or a tunnel for WebSockets."""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final, Self

import trustme

from tests.servers.process import PATIENCE, account, free_port, give_to, program, wait_until

KEEPALIVE_REQUESTS: Final = 10
KEEPALIVE_TIMEOUT: Final = 1
FILE_SIZE: Final = 4_000_000
READ_TIMEOUT: Final = 1
SHUTDOWN_TIMEOUT: Final = 2
COMMON: Final = """
daemon off;
worker_processes 2;
worker_shutdown_timeout {shutdown_timeout}s;
pid {directory}/pid;
error_log {directory}/error.log warn;
events {{ worker_connections 512; }}
http {{
    log_format short '$pid-$connection $server_protocol $request_method $request_uri $status';
    access_log {directory}/access.log short;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
"""
HTTP: Final = """
    keepalive_requests {requests};
    keepalive_timeout {timeout};
    ssl_certificate {directory}/server.pem;
    ssl_certificate_key {directory}/server.pem;
    server {{
        listen 127.0.0.1:{plain};
        listen 127.0.0.1:{secure} ssl;
        listen 127.0.0.1:{http2} ssl http2;
        listen 127.0.0.1:{prior} http2;
        location / {{ return 200 "generation {generation}"; }}
        location = /empty {{ return 204; }}
        location = /file {{ root {directory}/files; }}
    }}
}}
"""
WEBSOCKET: Final = """
    server {{
        listen 127.0.0.1:{plain};
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_read_timeout {read_timeout}s;
            add_header X-Generation {generation} always;
        }}
    }}
}}
"""


class NginxProcess:
    """nginx on free ports of 127.0.0.1, the first of which is called ``plain``.

    Use it in a ``with`` block, which leaves no process and no file behind.

    Invariant: generation counts the configurations it was given
    """

    def __init__(self, configuration: str, *ports: str, **values: float) -> None:
        self.generation = 0
        self._ports = {name: free_port() for name in ("plain", *ports)}
        self._program = program("nginx")
        self._configuration = COMMON + configuration
        self._values = values
        self._directory = Path(tempfile.mkdtemp(prefix="nimblepool-nginx-"))
        self._process: subprocess.Popen[bytes] | None = None
        (self._directory / "access.log").touch()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @property
    def log(self) -> str:
        """What it has written to its error log."""
        path = self._directory / "error.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def requests(self) -> list[tuple[str, ...]]:
        """Return connection, version, method, path and status of every request so far."""
        lines = (self._directory / "access.log").read_text().splitlines()
        return [tuple(line.split()) for line in lines]

    def requests_by_connection(self) -> Counter[str]:
        return Counter(connection for connection, *_ in self.requests())

    def start(self) -> None:
        """Start it, and return when it takes connections."""
        self._configure()
        with (self._directory / "output").open("ab") as output:
            self._process = subprocess.Popen[bytes](
                [self._program, "-e", self._directory / "error.log", "-c", self._directory / "nginx.conf"],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, **account(),
            )  # fmt: skip
        wait_until(self._answers, lambda: f"nginx does not start:\n{self.log}")

    def reload(self) -> None:
        """Give it a new configuration (SIGHUP); old workers finish what they do, and close idle connections."""
        self._configure()
        self._living().send_signal(signal.SIGHUP)

    def kill(self) -> None:
        """Kill it and its workers (SIGKILL)."""
        process = self._living()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)

    def workers(self) -> dict[int, bool]:
        """Return the processes that serve, and whether each takes new connections (an old one does not)."""
        pid = self._living().pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return {int(child): "shutting down" not in _title(child) for child in children}

    def remove(self) -> None:
        """Kill it if it runs, and delete its files."""
        try:
            if self._process is not None and self._process.poll() is None:
                self.kill()
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _configure(self) -> None:
        self.generation += 1
        values: dict[str, Any] = {"directory": self._directory, "generation": self.generation, **self._ports}
        text = self._configuration.format(**values, **self._values)
        (self._directory / "nginx.conf").write_text(text)
        give_to(account(), self._directory)

    def _living(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was never started"
        assert self._process.poll() is None, f"it has ended:\n{self.log}"
        return self._process

    def _answers(self) -> bool:
        self._living()
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", self._ports["plain"])) == 0:
                return True
        time.sleep(0.02)
        return False


class Nginx(NginxProcess):
    """A server of HTTP/1.1, TLS and HTTP/2 with a strict keep-alive."""

    def __init__(self, authority: trustme.CA) -> None:
        super().__init__(
            HTTP, "secure", "http2", "prior",
            requests=KEEPALIVE_REQUESTS, timeout=KEEPALIVE_TIMEOUT, shutdown_timeout=int(PATIENCE),
        )  # fmt: skip
        certificate = authority.issue_cert("localhost")
        certificate.private_key_and_cert_chain_pem.write_to_path(str(self._directory / "server.pem"))
        (self._directory / "files").mkdir()
        (self._directory / "files" / "file").write_bytes(b"x" * FILE_SIZE)

    def url(self, kind: str) -> str:
        """Return the URL of ``plain``, ``secure`` or ``http2``, or of ``prior``: HTTP/2 in plain text."""
        scheme = "https" if kind in {"secure", "http2"} else "http"
        return f"{scheme}://localhost:{self._ports[kind]}".replace("http://localhost", "http://127.0.0.1")


class Tunnel(NginxProcess):
    """A proxy in front of a WebSocket server, without patience.

    It closes a tunnel in which the server says nothing for ``READ_TIMEOUT`` seconds, and those that are still open
    ``SHUTDOWN_TIMEOUT`` seconds after a reload. A header says by which configuration a tunnel was opened.
    """

    def __init__(self, upstream: int) -> None:
        super().__init__(WEBSOCKET, upstream=upstream, read_timeout=READ_TIMEOUT, shutdown_timeout=SHUTDOWN_TIMEOUT)

    @property
    def uri(self) -> str:
        return f"ws://127.0.0.1:{self._ports['plain']}"


def _title(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:  # it has ended meanwhile
        return "shutting down"


def generation_of(text: str) -> int:
    """Return which configuration an answer comes from."""
    match = re.fullmatch(r"generation (\d+)", text)
    assert match is not None, text
    return int(match[1])
