from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.database.postgres.server import PostgresServer
from tests.servers.mariadb import MariaDBServer
from tests.servers.pgbouncer import PgBouncer

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.servers)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDBServer]:
    """The server that ordinary tests share; nobody stops or freezes it."""
    with MariaDBServer() as server:
        yield server


@pytest.fixture
def own_mariadb() -> Iterator[MariaDBServer]:
    """A server for one test, which may do to it what it likes."""
    with MariaDBServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def bouncer(postgres: PostgresServer) -> Iterator[PgBouncer]:
    """PgBouncer in front of a server whose only clients are its own."""
    with PgBouncer(postgres) as bouncer:
        yield bouncer
