import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from urllib.parse import quote

import psycopg
import psycopg.sql
import pytest

from nimblepool_database import Database
from tests.database.postgres.server import PostgresServer

serial = count(1).__next__


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith("sqlite ")]
    assert left == []


@pytest.fixture
async def counter(url: str) -> str:
    """The URL of a database with one counter, ``tally.n``, at 0."""
    return await with_counter(url)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The server that ordinary tests share; nobody stops or freezes it."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def db_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, of each kind that the façade must treat alike."""
    return url_of(request.param, request)


@pytest.fixture
async def db_counter(db_url: str) -> str:
    """The URL of a database of each kind, with one counter, ``tally.n``, at 0."""
    return await with_counter(db_url)


def url_of(kind: str, request: pytest.FixtureRequest) -> str:
    if kind == "sqlite":
        url: str = request.getfixturevalue("url")
        return url
    return in_new_schema(request.getfixturevalue("postgres"))


def in_new_schema(server: PostgresServer) -> str:
    schema = f"test_{serial()}"
    with psycopg.connect(server.url, autocommit=True) as conn:
        conn.execute(psycopg.sql.SQL("CREATE SCHEMA {}").format(psycopg.sql.Identifier(schema)))
    return f"{server.url}{'&' if '?' in server.url else '?'}options={quote(f'-csearch_path={schema}', safe='')}"


async def with_counter(url: str) -> str:
    async with Database(url) as db:
        await db.execute("CREATE TABLE tally (n INTEGER)")
        await db.execute("INSERT INTO tally VALUES (0)")
    return url


@pytest.fixture(scope="module")
def postgres_url_for_all(postgres: PostgresServer) -> str:
    """The URL of a schema that the examples of one property share."""
    return in_new_schema(postgres)
