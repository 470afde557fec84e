import logging
from typing import Any

import pytest

from nimblepool import PoolUnavailable
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


async def test_secrets_in_a_uri_are_in_no_error_no_log_and_no_figure(caplog: pytest.LogCaptureFixture) -> None:
    secret = "hunter2"
    uri = f"ws://me:{secret}@127.0.0.1:1/p?token={secret}"
    caplog.set_level(logging.DEBUG)
    async with open_keyed_websockets(correlate=JSONRPC(), min_size=1) as sockets:
        shown = []
        with pytest.raises(PoolUnavailable) as caught:
            async with sockets.connection(uri):
                pass
        shown.append(caught.value)
        with pytest.raises(PoolUnavailable) as caught:
            await sockets.request(uri, JSONRPC().call("x"))
        shown.append(caught.value)
        for error in shown:
            assert "ws://127.0.0.1:1/p" in str(error)
            assert secret not in str(error) + repr(error)
        assert set(sockets.stats) == set(sockets.shared_stats) == {uri}
        for stats in (sockets.stats, sockets.shared_stats):
            assert secret not in "".join(f"{key}{key!r}{stats[key]}" for key in stats)
            assert stats[uri].open_failures >= 1
    assert caplog.text
    assert secret not in caplog.text


async def test_a_key_may_be_a_name_of_the_users_own(uri: str) -> None:
    async with open_keyed_websockets(lambda _: WebSocketWorker(uri)) as sockets:
        async with sockets.connection("prices"), sockets.connection("pass word"):
            pass
        assert [str(key) for key in sockets.stats] == ["prices", "not a URI"]
        assert sockets.stats["prices"].opened == 1


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
