import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.database.postgres.server import PROGRAMS, PostgresServer


def answer(url: str, sql: str = "SELECT 42") -> object:
    with psycopg.connect(url, connect_timeout=5, autocommit=True) as conn:
        cursor = conn.execute(sql.encode())
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def test_over_tcp_and_over_the_socket(postgres: PostgresServer) -> None:
    assert answer(postgres.url) == answer(postgres.socket_url) == answer(postgres.conninfo) == 42


def test_a_password_is_needed(postgres: PostgresServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        answer(postgres.url.replace(postgres.password, "wrong"))


@pytest.mark.parametrize("version", sorted(PROGRAMS))
def test_each_version_starts_and_leaves_nothing(version: int) -> None:
    with PostgresServer(version) as server:
        major = answer(server.url, "SELECT current_setting('server_version_num')::int / 10000")
        pid = answer(server.url, "SELECT pg_backend_pid()")
        directory = server.data.parent
        assert major == version
        assert isinstance(pid, int)
        process = server._process
        assert process is not None
    assert not psutil.pid_exists(process.pid)
    assert not directory.exists()


def test_what_was_acknowledged_survives_every_end(own_postgres: PostgresServer) -> None:
    answer(own_postgres.url, "CREATE TABLE t (n int)")
    for n, end in enumerate((own_postgres.stop, lambda: own_postgres.stop("immediate"), own_postgres.kill), 1):
        answer(own_postgres.url, f"INSERT INTO t VALUES ({n})")
        end()
        assert not own_postgres.running
        own_postgres.start()
        assert answer(own_postgres.url, "SELECT count(*) FROM t") == n


def test_frozen_it_answers_nobody_until_it_is_thawed(own_postgres: PostgresServer) -> None:
    with closing(psycopg.connect(own_postgres.url)) as conn:
        with own_postgres.frozen():
            conn.pgconn.send_query(b"SELECT 1")
            conn.pgconn.consume_input()
            assert conn.pgconn.is_busy()
        assert conn.pgconn.get_result() is not None


def test_a_killed_backend_takes_every_session_with_it(own_postgres: PostgresServer) -> None:
    with psycopg.connect(own_postgres.url, autocommit=True) as conn:
        pid = answer(own_postgres.url, "SELECT pid FROM pg_stat_activity WHERE state = 'idle'")
        assert isinstance(pid, int)
        own_postgres.kill_backend(pid)
        with pytest.raises(psycopg.OperationalError):
            conn.execute("SELECT pg_sleep(20)")
    assert own_postgres.running


KILLED = """
import os, signal
from tests.database.postgres.server import PostgresServer
with PostgresServer() as running, PostgresServer() as frozen:
    frozen.freeze()
    print(running.data.parent, frozen.data.parent, *[server._process.pid for server in (running, frozen)], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_test_run_that_is_killed_leaves_nothing_either() -> None:
    done = subprocess.run([sys.executable, "-c", KILLED], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    *directories, one, other = done.stdout.split()
    wait_until(lambda: not any(Path(directory).exists() for directory in directories))
    wait_until(lambda: not any(psutil.pid_exists(int(pid)) for pid in (one, other)))


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
