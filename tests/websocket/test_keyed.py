from typing import Any

import pytest

from nimblepool_websocket import JSONRPC, WebSocketWorker, open_keyed_websockets
from tests.websocket.figures import tasks
from tests.websocket.peer import until


async def test_each_uri_has_sockets_of_its_own(uri: str) -> None:
    rpc = JSONRPC()
    async with open_keyed_websockets(correlate=rpc) as sockets:
        async with sockets.connection(f"{uri}/greeting") as greeting:
            assert await greeting.recv() == "welcome"
        for _ in range(2):
            async with sockets.connection(uri) as ws:
                await ws.send("mine")
                assert await ws.recv() == "mine"
        assert rpc.result(await sockets.request(uri, rpc.call("echo", 3))) == 3
        await sockets.send(uri, rpc.notification("nothing"))
        assert set(sockets.stats) == {uri, f"{uri}/greeting"}
        assert set(sockets.shared_stats) == {uri}
        assert sockets.stats[uri].opened == 1
        assert sockets.shared_stats[uri].opened == 1
    assert tasks() == set()


async def test_max_total_holds_over_all_uris(uri: str) -> None:
    async with open_keyed_websockets(max_total=2) as sockets:
        for n in range(6):
            async with sockets.connection(f"{uri}/{n}") as ws:
                await ws.send("mine")
                assert await ws.recv() == "mine"
        assert sum(stats.size for stats in sockets.stats.values()) <= 2


async def test_an_unused_uri_is_closed(uri: str) -> None:
    async with open_keyed_websockets(key_idle=0.05) as sockets:
        async with sockets.connection(uri):
            pass
        await until(lambda: not len(sockets.stats))


async def test_a_uri_that_is_none_or_not_allowed_is_refused(uri: str) -> None:
    def make(address: str) -> WebSocketWorker:
        if address != uri:
            raise PermissionError(address)
        return WebSocketWorker(address)

    async with open_keyed_websockets(make) as sockets:
        async with sockets.connection(uri):
            pass
        with pytest.raises(PermissionError):
            async with sockets.connection("ws://elsewhere"):
                pass
    async with open_keyed_websockets() as other:
        with pytest.raises(ValueError, match="uri must be like"):
            async with other.connection("nonsense"):
                pass


@pytest.mark.parametrize("options", [{"max_total": 0}, {"key_idle": 0}])
async def test_a_bad_option_of_the_keys_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        async with open_keyed_websockets(**options):
            pass
