import os
from collections.abc import Iterator

import pytest

from tests.websocket.echo import Echo
from tests.websocket.figures import sockets


@pytest.fixture(scope="session")
def echo() -> Iterator[Echo]:
    """The server that the tests share; nobody stops it."""
    with Echo() as server:
        yield server


@pytest.fixture
def uri(echo: Echo) -> str:
    return echo.uri


@pytest.fixture
def own_echo() -> Iterator[Echo]:
    """A server for one test, which may kill it."""
    with Echo() as server:
        yield server


@pytest.fixture(autouse=True)
def no_proxy_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of whoever runs the tests has no say."""
    for name in os.environ:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def no_socket_is_left() -> Iterator[None]:
    before = sockets()
    yield
    assert sockets() <= before
