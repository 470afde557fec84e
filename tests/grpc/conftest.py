import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trustme

from nimblepool.testing import check_balance
from nimblepool_grpc import PooledChannel
from tests.grpc.peer import PATIENCE, Server, nothing_runs, until
from tests.grpc.stubs import HERE, Generated, Stubs, generate


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the modules that grpcio-tools makes, once for all tests."""
    directory = tmp_path_factory.mktemp("stubs")
    generate(directory, HERE / "peer.proto", HERE / "health.proto")
    return directory


@pytest.fixture(scope="session")
def pb(generated: Path) -> Stubs:
    return Stubs("peer")


@pytest.fixture(scope="session")
def server(generated: Path) -> Iterator[Server]:
    """The server that the tests share; nobody stops it."""
    with Server(generated) as server:
        yield server


@pytest.fixture
def own_server(generated: Path) -> Iterator[Server]:
    """A server for one test, which may kill it."""
    with Server(generated) as server:
        yield server


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(autouse=True)
def no_proxy_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of whoever runs the tests has no say."""
    for name in os.environ:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
async def channel(server: Server) -> AsyncIterator[PooledChannel]:
    """A channel to the shared server, on which a test must leave no call."""
    async with PooledChannel(server.target, checkout_timeout=PATIENCE) as channel:
        yield channel
        await until(lambda: not channel.stats.leases)
        check_balance(channel.pool)
    await nothing_runs(server)


@pytest.fixture
def stub(channel: PooledChannel, pb: Stubs) -> Generated:
    return pb.PeerStub(channel)
