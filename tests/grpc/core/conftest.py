from collections.abc import AsyncIterator, Iterator

import pytest
import trio

from nimblepool_grpc._core import CoreChannel
from tests.grpc.core.process import PATIENCE, Server, batches_left, until


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The server that the tests share; nobody stops it."""
    with Server() as running:
        yield running


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server for one test, which may kill it."""
    with Server() as running:
        yield running


@pytest.fixture
async def channel(server: Server) -> AsyncIterator[CoreChannel]:
    """A channel that leaves the core with nothing."""
    channel = CoreChannel(server.target)
    with trio.fail_after(PATIENCE):
        yield channel
        channel.close()
        await until(lambda: not batches_left(channel))
    assert not channel.running
