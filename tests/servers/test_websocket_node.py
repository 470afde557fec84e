"""Node's `ws` as a peer, straight and with nginx in between."""

from typing import Final

import pytest
import trio

from nimblepool import Backoff
from nimblepool.testing import check_balance, sweep
from nimblepool_websocket import JSONRPC, RequestLost, SocketClosed, WebSockets, open_websockets
from tests.servers.nginx import Tunnel
from tests.servers.node import Node
from tests.servers.process import until
from tests.websocket.figures import tasks

pytestmark = pytest.mark.usefixtures("no_socket_is_left")

QUICK: Final = Backoff(0.05, 0.2)


@pytest.fixture(params=["straight", "through nginx"])
def uri(request: pytest.FixtureRequest, node: Node, tunnel: Tunnel) -> str:
    return node.uri if request.param == "straight" else tunnel.uri


async def test_leases_requests_and_subscriptions_work(uri: str) -> None:
    rpc = JSONRPC()

    async def ask(pools: WebSockets, n: int) -> None:
        assert rpc.result(await pools.request(rpc.call("echo", n))) == n

    async with open_websockets(uri, correlate=rpc) as pools:
        for n in range(10):
            async with pools.connection() as ws:
                await ws.send(f"mine {n}")
                assert await ws.recv() == f"mine {n}"
                await ws.send(b"\0" * 200_000)
                assert await ws.recv() == b"\0" * 200_000
                await ws.send('{"method": "fragments"}')
                assert await ws.recv() == "one two three"
                await (await ws.ping()).wait()
        async with trio.open_nursery() as nursery:
            for n in range(200):
                nursery.start_soon(ask, pools, n)
        async with pools.subscribe() as messages:
            await pools.request(rpc.call("tell", 20))
            assert messages.waiting == 20
        assert (pools.stats.opened, pools.shared_pool.stats.opened) == (1, 1)
    assert tasks() == set()


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 1013, 4000])
async def test_code_and_reason_of_a_close_come_through(uri: str, code: int) -> None:
    rpc = JSONRPC()
    async with open_websockets(uri, correlate=rpc) as pools:
        with pytest.raises(SocketClosed) as caught:
            async with pools.connection() as ws:
                await ws.send(rpc.notification("close", [code, "because"]))
                await ws.recv()
        assert (caught.value.code, caught.value.reason) == (code, "because")
        with pytest.raises(RequestLost) as lost:
            await pools.request(rpc.call("close", [code, "because"]))
        assert (lost.value.code, lost.value.was_sent) == (code, True)
        assert rpc.result(await pools.request(rpc.call("echo", 1))) == 1


async def test_a_connection_that_is_cut_is_noticed(uri: str) -> None:
    rpc = JSONRPC()
    async with open_websockets(uri, correlate=rpc, min_size=2) as pools:
        await pools.pool.wait_ready()
        with pytest.raises(SocketClosed) as caught:
            async with pools.connection() as ws:
                await ws.send(rpc.notification("terminate"))
                await ws.recv()
        assert caught.value.code == 1006
        await pools.pool.wait_ready()
        check_balance(pools.pool)


async def test_unread_messages_delay_no_closing(uri: str) -> None:
    rpc = JSONRPC()
    with trio.fail_after(1.5):
        async with open_websockets(uri) as pools, pools.connection() as ws:
            await ws.send(rpc.notification("tell", 500))
            await until(lambda: ws.raw.recv_messages.paused)
    assert tasks() == set()


async def test_cancelled_at_every_checkpoint_a_request_leaves_nothing_behind(uri: str) -> None:
    rpc = JSONRPC()
    async with open_websockets(uri, correlate=rpc, max_size=2) as pools:

        async def use() -> None:
            async with pools.connection() as ws:
                await ws.send("mine")
                assert await ws.recv() == "mine"
            assert rpc.result(await pools.request(rpc.call("echo", 1))) == 1

        async def check() -> None:
            await use()
            check_balance(pools.pool)
            check_balance(pools.shared_pool)

        assert await sweep(use, check) > 5
    assert tasks() == set()


async def test_a_server_that_is_killed_and_comes_back_is_found_again(own_node: Node) -> None:
    rpc = JSONRPC()
    async with open_websockets(own_node.uri, correlate=rpc, on_open_failure="wait", backoff=QUICK) as pools:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(_lost, pools, rpc)
            await until(lambda: pools.shared_pool.stats.leases == 10)
            own_node.kill()
        await trio.to_thread.run_sync(own_node.start)
        assert rpc.result(await pools.request(rpc.call("echo", 1))) == 1
    assert tasks() == set()


async def _lost(pools: WebSockets, rpc: JSONRPC) -> None:
    with pytest.raises(RequestLost) as caught:
        await pools.request(rpc.call("nothing"))
    assert caught.value.was_sent
