from collections.abc import Iterator
from pathlib import Path

import pytest

from nimblepool_database._dbapi._duckdb import duckdb_worker
from nimblepool_database._dbapi._psycopg import psycopg_worker
from nimblepool_database._dbapi._sqlite3 import sqlite3_worker
from tests.database.dbapi.kind import Kind, connection_threads
from tests.database.dbapi.slow import Database as SlowDatabase
from tests.database.postgres.server import PostgresServer


@pytest.fixture(autouse=True)
def no_thread_of_a_connection_is_left() -> Iterator[None]:
    yield
    assert connection_threads() == 0


@pytest.fixture
def slow() -> Iterator[SlowDatabase]:
    database = SlowDatabase()
    yield database
    database.slow.set()


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["sqlite3", "duckdb", "psycopg"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    """A real driver with its ready-made settings, and a database with an empty ``account`` table to come."""
    if request.param == "sqlite3":
        return Kind(sqlite3_worker(tmp_path / "s.db"), "?", endless=ENDLESS)
    if request.param == "duckdb":
        return Kind(duckdb_worker(tmp_path / "d.db"), "?", endless=ENDLESS, savepoints=False)
    server: PostgresServer = request.getfixturevalue("server")
    return Kind(psycopg_worker(server.url), "%s", endless="SELECT pg_sleep(60)")


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
