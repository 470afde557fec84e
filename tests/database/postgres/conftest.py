from collections.abc import Iterator

import pytest

from tests.database.postgres.server import PostgresServer


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server for one test, which may do to it what it likes."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """The URL of the shared server, with the password."""
    return postgres.url
