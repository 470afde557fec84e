"""A real MariaDB as a child process of the tests, from Debian's package mariadb-server-core.

The package has the server and nothing else: the system tables are made here, as mariadb-install-db would. A server
refuses to run as root: under root it is `nobody`'s, in a directory of `nobody`'s own.
"""

import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

import pymysql  # type: ignore[import-untyped] # its stubs are another package

from tests.servers.process import PATIENCE, account, free_port, give_to, program, wait_until

SCRIPTS: Final = Path("/usr/share/mysql")
SYSTEM_TABLES: Final = ("mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql")
USER: Final = "tester"
DATABASE: Final = "test"
SETTINGS: Final = (
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--innodb-buffer-pool-size=16M",
    "--innodb-log-file-size=8M",
    # The machine does not crash, only processes do: what they wrote is in the kernel's hands.
    "--innodb-flush-log-at-trx-commit=2",
    "--innodb-flush-method=nosync",
    "--skip-innodb-doublewrite",
    "--performance-schema=off",
    "--log-warnings=1",
)


class MariaDBServer:
    """One server with one user, a password and one database, on a free port of 127.0.0.1.

    Use it in ``with MariaDBServer() as server:``, which leaves no process and no file behind. Its methods block for up
    to a second.
    """

    def __init__(self) -> None:
        self.password = secrets.token_hex(12)
        self.port = free_port()
        self._program = program("mariadbd")
        self._directory = Path(tempfile.mkdtemp(prefix="nimblepool-maria-"))
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
    def arguments(self) -> dict[str, Any]:
        """What `pymysql.connect` wants, the password among it."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "user": USER,
            "password": self.password,
            "database": DATABASE,
        }

    @property
    def log(self) -> str:
        """What the server has written to its log."""
        path = self._directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the answer of a session of its own."""
        connection = pymysql.connect(**self.arguments, autocommit=True, connect_timeout=5, read_timeout=10)
        try:
            cursor = connection.cursor()
            cursor.execute(sql)
            return list(cursor.fetchall())
        finally:
            connection.close()

    def create(self) -> None:
        """Make the system tables, the user and the database; to be called once."""
        (self._directory / "data").mkdir()
        give_to(account(), self._directory)
        # One statement a line.
        sql = [
            "CREATE DATABASE mysql;",
            "USE mysql;",
            "SET @auth_root_socket = NULL;",
            *((SCRIPTS / name).read_text() for name in SYSTEM_TABLES),
            f"CREATE DATABASE {DATABASE};",
            "FLUSH PRIVILEGES;",
            f"CREATE USER {USER}@127.0.0.1 IDENTIFIED BY '{self.password}';",
            f"GRANT ALL ON {DATABASE}.* TO {USER}@127.0.0.1;",
            # To see sessions and transactions; to kill one's own takes no privilege.
            f"GRANT PROCESS ON *.* TO {USER}@127.0.0.1;",
            "",
        ]
        done = subprocess.run(
            [*self._command(), "--bootstrap"],
            input="\n".join(sql), check=False, capture_output=True, text=True, timeout=PATIENCE, **account(),
        )  # fmt: skip
        assert done.returncode == 0, f"mariadbd --bootstrap failed:\n{done.stdout}{done.stderr}"

    def start(self) -> None:
        """Start the server, and return when it takes connections."""
        assert self._process is None or self._process.poll() is not None, "it runs already"
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen[bytes](
                self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **account()
            )
        wait_until(self._answers, lambda: f"MariaDB does not start:\n{self.log}")

    def kill(self) -> None:
        """Kill the server (SIGKILL)."""
        process = self._living()
        process.kill()
        process.wait(PATIENCE)

    def restart(self) -> None:
        """Kill the server and start it again."""
        self.kill()
        self.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the server where it is for a block (SIGSTOP): connections stay open and nobody answers."""
        process = self._living()
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def remove(self) -> None:
        """Kill the server if it runs, and delete all its files."""
        try:
            if self._process is not None and self._process.poll() is None:
                self.kill()
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _command(self) -> list[str]:
        directory = self._directory
        return [
            self._program, "--no-defaults", f"--datadir={directory / 'data'}", f"--tmpdir={directory}",
            f"--socket={directory / 'socket'}", f"--pid-file={directory / 'pid'}", f"--port={self.port}", *SETTINGS,
        ]  # fmt: skip

    def _living(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was never started"
        assert self._process.poll() is None, f"it has ended:\n{self.log}"
        return self._process

    def _answers(self) -> bool:
        self._living()
        try:
            self.ask("SELECT 1")
        except pymysql.OperationalError:
            time.sleep(0.02)
            return False
        return True
