"""A PostgreSQL server with one small table: the server of the tests, which needs no installation."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from benchmarks.measure import Dropped
from benchmarks.process import on_core, servers_core

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = 100
FILL = (
    "CREATE TABLE item (id integer, name text, price float8)",
    f"INSERT INTO item SELECT n, 'item ' || n, n * 1.25 FROM generate_series(1, {ROWS}) n",  # noqa: S608 - a constant
    "VACUUM ANALYZE item",
)


@contextmanager
def open_postgres() -> Iterator[str]:
    """Run a server for a block; yields its URL, over TCP.

    Raises:
        Dropped: it does not start, or is not installed.
    """
    with ExitStack() as stack:
        try:
            url = _start(stack)
        except (ImportError, AssertionError, OSError, subprocess.SubprocessError) as error:
            raise Dropped(f"{type(error).__name__}: {error}") from error
        yield url


def _start(stack: ExitStack) -> str:
    # Here, so that the other sections do not need it.
    from tests.database.postgres.server import NEWEST, PROGRAMS, PostgresServer  # noqa: PLC0415 - see above

    with on_core(servers_core()):
        server = stack.enter_context(PostgresServer())
    commands = [part for statement in FILL for part in ("--command", statement)]
    psql = PROGRAMS[NEWEST] / "bin/psql"
    subprocess.run([psql, "--quiet", "--no-psqlrc", *commands, server.url], check=True)  # noqa: S603 - our own server
    return server.url
