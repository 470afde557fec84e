import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.database.postgres.server import PostgresServer
from tests.servers.mariadb import MariaDBServer
from tests.servers.nginx import Tunnel
from tests.servers.node import Node
from tests.servers.pgbouncer import PgBouncer
from tests.websocket.figures import sockets

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


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    """The WebSocket server that tests share; nobody stops it."""
    with Node() as server:
        yield server


@pytest.fixture
def own_node() -> Iterator[Node]:
    """A WebSocket server for one test, which may kill it."""
    with Node() as server:
        yield server


@pytest.fixture(scope="session")
def tunnel(node: Node) -> Iterator[Tunnel]:
    """The nginx before the shared WebSocket server; nobody stops it."""
    with Tunnel(node.port) as nginx:
        yield nginx


@pytest.fixture
def own_tunnel(node: Node) -> Iterator[Tunnel]:
    """An nginx for one test, which may kill and reload it."""
    with Tunnel(node.port) as nginx:
        yield nginx


@pytest.fixture
def no_socket_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The test closes what it opens, and a proxy that the environment names has no say."""
    for name in os.environ:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    before = sockets()
    yield
    assert sockets() <= before
