import os
from collections.abc import Iterator

import pytest

from tests.http.figures import collect, sockets
from tests.http.pairs import ClientName, Pair, pair_of
from tests.http.servers.tls import Certificates


@pytest.fixture(params=["httpx", "httpx2"])
def pair(request: pytest.FixtureRequest) -> Pair:
    name: ClientName = request.param
    return pair_of(name)


@pytest.fixture(scope="session")
def certificates() -> Certificates:
    return Certificates()


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
    if sockets() > before:
        collect()
    assert sockets() <= before
