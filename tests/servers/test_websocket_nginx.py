"""nginx between the pool and Node's `ws`: it closes silent tunnels, is killed and started again, and reloads."""

from typing import Final

import pytest
import trio

from nimblepool import Backoff, PoolUnavailable
from nimblepool.testing import check_balance
from nimblepool_websocket import (
    JSONRPC,
    LeasedSocket,
    RequestLost,
    Socket,
    SocketClosed,
    WebSockets,
    WebSocketWorker,
    open_websockets,
)
from tests.servers.nginx import READ_TIMEOUT, SHUTDOWN_TIMEOUT, Tunnel
from tests.servers.process import PATIENCE, until
from tests.websocket.figures import tasks

pytestmark = pytest.mark.usefixtures("no_socket_is_left")

LIVELY: Final = READ_TIMEOUT / 4
"""Seconds between pings that keep a tunnel open."""
AT_ONCE: Final = 0.5
"""Seconds that are below every timeout there is: of the proxy, the pool and the driver."""
QUICK: Final = Backoff(0.05, 0.2)


async def test_pings_keep_an_idle_socket_alive_through_a_proxy(tunnel: Tunnel) -> None:
    async with open_websockets(WebSocketWorker(tunnel.uri, ping_interval=LIVELY), min_size=2) as pools:
        await pools.pool.wait_ready()
        await trio.sleep(2.5 * READ_TIMEOUT)
        assert (pools.stats.opened, pools.stats.lost, pools.stats.idle) == (2, 0, 2)
        async with pools.connection() as ws:
            assert generation_of(ws) == tunnel.generation
            await ws.send("mine")
            assert await ws.recv() == "mine"


async def test_an_idle_socket_that_a_proxy_closes_is_replaced_at_once(tunnel: Tunnel) -> None:
    # One that dies unused in its first `backoff.base` seconds would count as a failure to open.
    worker = WebSocketWorker(tunnel.uri, ping_interval=None)
    async with open_websockets(worker, min_size=2, backoff=QUICK) as pools:
        await pools.pool.wait_ready()
        await until(lambda: pools.stats.lost == 2)
        with trio.fail_after(AT_ONCE):
            await pools.pool.wait_ready()
        assert (pools.stats.opened, pools.stats.idle) == (4, 2)
        async with pools.connection() as ws:
            await ws.send("mine")
            assert await ws.recv() == "mine"
        check_balance(pools.pool)


async def test_pings_give_a_slow_answer_the_time_that_a_proxy_would_not(tunnel: Tunnel) -> None:
    rpc = JSONRPC()
    slow = rpc.call("later", 1500 * READ_TIMEOUT)
    async with open_websockets(WebSocketWorker(tunnel.uri, ping_interval=LIVELY), correlate=rpc) as pools:
        assert rpc.result(await pools.request(slow)) == 1500 * READ_TIMEOUT
    async with open_websockets(WebSocketWorker(tunnel.uri, ping_interval=None), correlate=rpc) as pools:
        with pytest.raises(RequestLost) as caught:
            await pools.request(slow)
        assert (caught.value.was_sent, caught.value.code) == (True, 1006)
        assert rpc.result(await pools.request(rpc.call("echo", 1))) == 1


async def test_requests_get_through_though_the_proxy_is_killed_and_started_again(own_tunnel: Tunnel) -> None:
    rpc = JSONRPC()
    answers: list[int] = []
    lost: list[RequestLost] = []

    async def ask(pools: WebSockets, number: int) -> None:
        for n in range(number, 3000, 20):
            answer = await ask_until_answered(pools, n)
            answers.append(answer)

    async def ask_until_answered(pools: WebSockets, n: int) -> int:
        while True:
            try:
                result: int = rpc.result(await pools.request(rpc.call("echo", n)))
            except RequestLost as error:
                lost.append(error)
            else:
                return result

    async def restart_after(step: int) -> None:
        await until(lambda: len(answers) > step)
        own_tunnel.kill()
        await trio.to_thread.run_sync(own_tunnel.start)

    async with open_websockets(own_tunnel.uri, correlate=rpc, on_open_failure="wait", backoff=QUICK) as pools:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, pools, number)
            for step in (500, 1000, 1500):
                await restart_after(step)
        assert sorted(answers) == list(range(3000))
        assert pools.shared_pool.stats.lost == 3
        # At most what 20 tasks had in flight each time; none that was never sent is among them.
        assert 0 < len(lost) <= 60
        assert all(error.was_sent for error in lost)
        check_balance(pools.shared_pool)
    assert tasks() == set()


async def test_the_death_of_a_proxy_ends_leases_and_requests_at_once(own_tunnel: Tunnel) -> None:
    rpc = JSONRPC()
    ends: list[str] = []

    async def receive(pools: WebSockets) -> None:
        with pytest.raises(SocketClosed) as caught:
            async with pools.connection() as ws:
                await ws.recv()
        ends.append(f"lease {caught.value.code}")

    async def wait(pools: WebSockets) -> None:
        await _lost(pools, rpc)
        ends.append("request")

    async with open_websockets(WebSocketWorker(own_tunnel.uri, ping_interval=LIVELY), correlate=rpc) as pools:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(receive, pools)
                nursery.start_soon(wait, pools)
            await until(lambda: (pools.stats.leased, pools.shared_pool.stats.leases) == (5, 5))
            await pools.request(rpc.call("echo", 1))
            own_tunnel.kill()
            nursery.cancel_scope.deadline = trio.current_time() + AT_ONCE
        assert sorted(ends) == ["lease 1006"] * 5 + ["request"] * 5
        with pytest.raises(PoolUnavailable):
            await pools.request(rpc.call("echo", 1))
        await trio.to_thread.run_sync(own_tunnel.start)
        with trio.fail_after(PATIENCE):
            assert rpc.result(await _asked_again(pools, rpc.call("echo", 1))) == 1
    assert tasks() == set()


async def test_a_reload_disturbs_no_request_and_its_old_sockets_are_replaced(own_tunnel: Tunnel) -> None:
    rpc = JSONRPC()
    pause = 200 * SHUTDOWN_TIMEOUT
    worker = WebSocketWorker(own_tunnel.uri, ping_interval=LIVELY, on_open=greet)
    async with open_websockets(worker, correlate=rpc, min_size=2) as pools, pools.subscribe(is_greeting) as greetings:
        assert await anext(greetings) == "hello"
        await pools.pool.wait_ready()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_answered, pools, rpc, pause)
            await until(lambda: pools.shared_pool.stats.leases == 1)
            await trio.to_thread.run_sync(own_tunnel.reload)
        assert (pools.stats.lost, greetings.losses) == (0, 0)
        # A subscriber finds out by its losses, and on_open has ordered anew.
        assert await anext(greetings) == "hello"
        assert greetings.losses == 1
        await until(lambda: pools.stats.lost == 2)
        await pools.pool.wait_ready()
        async with pools.connection() as one, pools.connection() as other:
            assert {generation_of(one), generation_of(other)} == {own_tunnel.generation} == {2}
        assert rpc.result(await pools.request(rpc.call("echo", 1))) == 1
    assert tasks() == set()


async def test_a_refresh_after_a_reload_moves_every_socket_and_loses_no_request(own_tunnel: Tunnel) -> None:
    rpc = JSONRPC()
    done = False

    async def ask(pools: WebSockets) -> None:
        while not done:
            assert rpc.result(await pools.request(rpc.call("later", 5))) == 5

    async with open_websockets(own_tunnel.uri, correlate=rpc, min_size=2) as pools:
        await pools.pool.wait_ready()
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask, pools)
            await until(lambda: pools.shared_pool.stats.leases == 10)
            old = own_tunnel.workers().keys()
            own_tunnel.reload()
            await until(lambda: not any(own_tunnel.workers().get(worker) for worker in old))
            pools.pool.refresh()
            pools.shared_pool.refresh()
            # The old workers end as soon as nobody is with them.
            await until(lambda: not own_tunnel.workers().keys() & old)
            done = True
        assert (pools.stats.opened, pools.shared_pool.stats.opened) == (4, 2)
        assert (pools.stats.lost, pools.shared_pool.stats.lost) == (0, 0)
        check_balance(pools.shared_pool)


async def _asked_again(pools: WebSockets, message: str) -> str | bytes:
    while True:
        try:
            return await pools.request(message)
        except PoolUnavailable as error:
            await trio.sleep(error.retry_after)


async def greet(connection: Socket) -> None:
    await connection.send("hello")


def is_greeting(message: str | bytes) -> bool:
    return message == "hello"


def generation_of(ws: LeasedSocket) -> int:
    assert ws.response is not None
    return int(ws.response.headers["X-Generation"])


async def _answered(pools: WebSockets, rpc: JSONRPC, pause: int) -> None:
    assert rpc.result(await pools.request(rpc.call("later", pause))) == pause


async def _lost(pools: WebSockets, rpc: JSONRPC) -> None:
    with pytest.raises(RequestLost) as caught:
        await pools.request(rpc.call("nothing"))
    assert caught.value.was_sent
