"""A real PgBouncer in transaction mode as a child process of the tests, from Debian's package."""

import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Final, Self

import psycopg

from tests.database.postgres.server import DATABASE, USER, PostgresServer
from tests.servers.process import PATIENCE, account, free_port, give_to, program, wait_until

SERVER_CONNECTIONS: Final = 3
CONFIGURATION: Final = """
[databases]
{database} = host=127.0.0.1 port={server_port} dbname={database}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {directory}/users
admin_users = {user}
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 200
server_login_retry = 0.1
"""


class PgBouncer:
    """PgBouncer in front of a PostgreSQL server, with few connections to it, on a free port of 127.0.0.1.

    Use it in ``with PgBouncer(server) as bouncer:``, which leaves no process and no file behind.
    """

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self.port = free_port()
        self._program = program("pgbouncer")
        self._directory = Path(tempfile.mkdtemp(prefix="nimblepool-bouncer-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._configure()

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
    def url(self) -> str:
        """The URL, with the password."""
        return f"postgresql://{USER}:{self._server.password}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def log(self) -> str:
        """What it has written to its log."""
        path = self._directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Start it, and return when it takes connections."""
        assert self._process is None or self._process.poll() is not None, "it runs already"
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen[bytes](
                [self._program, self._directory / "pgbouncer.ini"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **account(),
            )  # fmt: skip
        wait_until(self._answers, lambda: f"PgBouncer does not start:\n{self.log}")

    def kill(self) -> None:
        """Kill it (SIGKILL)."""
        assert self._process is not None, "it was never started"
        assert self._process.poll() is None, f"it has ended:\n{self.log}"
        self._process.kill()
        self._process.wait(PATIENCE)

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start()

    def show(self, what: str) -> list[dict[str, Any]]:
        """Ask its console, ``SHOW ...``."""
        url = self.url.removesuffix(DATABASE) + "pgbouncer"
        # The console knows simple queries only.
        with psycopg.connect(url, autocommit=True, cursor_factory=psycopg.ClientCursor, connect_timeout=5) as console:
            cursor = console.execute(f"SHOW {what}".encode())
            names = [column.name for column in cursor.description or []]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def remove(self) -> None:
        """Kill it if it runs, and delete its files."""
        try:
            if self._process is not None and self._process.poll() is None:
                self.kill()
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _configure(self) -> None:
        settings = CONFIGURATION.format(
            database=DATABASE, user=USER, server_port=self._server.port, port=self.port, directory=self._directory,
            size=SERVER_CONNECTIONS,
        )  # fmt: skip
        (self._directory / "pgbouncer.ini").write_text(settings)
        (self._directory / "users").write_text(f'"{USER}" "{self._server.password}"\n')
        give_to(account(), self._directory)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"it has ended:\n{self.log}"
        try:
            psycopg.connect(self.url, connect_timeout=5).close()
        except psycopg.OperationalError:
            time.sleep(0.02)
            return False
        return True
