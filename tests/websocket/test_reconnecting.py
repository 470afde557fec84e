from typing import Any

import pytest
import trio

from nimblepool import Backoff, CircuitBreaker, PoolUnavailable
from nimblepool.testing import check_balance
from nimblepool_websocket import (
    JSONRPC,
    RequestLost,
    Socket,
    SocketClosed,
    WebSockets,
    WebSocketWorker,
    open_websockets,
)
from tests.websocket.echo import Echo
from tests.websocket.figures import tasks
from tests.websocket.peer import PATIENCE, until

QUICK = Backoff(base=0.01, cap=0.05)


async def hang(_: Socket) -> None:
    await trio.sleep_forever()


async def test_on_open_runs_on_every_socket_before_it_is_lent_and_after_a_reconnect(own_echo: Echo) -> None:
    rpc = JSONRPC()
    logins: list[Any] = []

    async def login(ws: Socket) -> None:
        await ws.send("let me in")
        logins.append(await ws.recv())

    worker = WebSocketWorker(own_echo.uri, on_open=login)
    async with open_websockets(worker, correlate=rpc, on_open_failure="wait", backoff=QUICK) as sockets:
        async with sockets.connection() as ws:
            await ws.send("mine")
            assert await ws.recv() == "mine"
        await sockets.request(rpc.call("echo"))
        assert logins == ["let me in"] * 2
        own_echo.kill()
        await trio.to_thread.run_sync(own_echo.start)
        async with sockets.connection() as ws:
            await ws.send("mine")
            assert await ws.recv() == "mine"
        await sockets.request(rpc.call("echo"))
        assert logins == ["let me in"] * 4
        check_balance(sockets.pool)
        check_balance(sockets.shared_pool)


@pytest.mark.parametrize("failure", [RuntimeError("mine"), SocketClosed(None, None)])
async def test_an_on_open_that_fails_counts_as_a_failure_to_open(uri: str, failure: Exception) -> None:
    async def refuse(ws: Socket) -> None:
        raise failure

    async with open_websockets(WebSocketWorker(uri, on_open=refuse)) as sockets:
        with pytest.raises(PoolUnavailable) as caught:
            async with sockets.connection():
                pass
        assert caught.value.__cause__ is failure
    assert tasks() == set()


async def test_an_on_open_that_hangs_is_cut_off(uri: str) -> None:
    worker = WebSocketWorker(uri, on_open=hang)
    async with open_websockets(worker, init_timeout=0.05) as sockets:
        with pytest.raises(PoolUnavailable):
            async with sockets.connection():
                pass
    assert tasks() == set()


async def test_a_server_that_restarts_is_waited_for(own_echo: Echo) -> None:
    rpc = JSONRPC()
    async with open_websockets(own_echo.uri, correlate=rpc, on_open_failure="wait", backoff=QUICK) as sockets:
        await sockets.request(rpc.call("echo"))
        own_echo.kill()
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(sockets.request, rpc.call("echo"))
                await trio.to_thread.run_sync(own_echo.start)


async def test_a_server_that_stays_away_opens_the_breaker(own_echo: Echo) -> None:
    own_echo.kill()
    async with open_websockets(own_echo.uri, backoff=Backoff(30, 30, "none"), breaker=CircuitBreaker(1)) as sockets:
        for retry_after in (True, True):
            with pytest.raises(PoolUnavailable) as caught, trio.fail_after(1):
                async with sockets.connection():
                    pass
            assert (caught.value.retry_after > 1) is retry_after
            assert isinstance(caught.value.__cause__, OSError)


async def test_a_killed_server_fails_what_is_in_flight_on_both_kinds_of_sockets(own_echo: Echo) -> None:
    rpc = JSONRPC()
    errors: list[type[Exception]] = []

    async def ask(sockets: WebSockets) -> None:
        try:
            await sockets.request(rpc.call("nothing"))
        except RequestLost as error:
            errors.append(type(error))

    async def receive(sockets: WebSockets) -> None:
        with pytest.raises(SocketClosed) as caught:
            async with sockets.connection() as ws:
                await ws.recv()
        errors.append(caught.type)

    async with open_websockets(own_echo.uri, correlate=rpc) as sockets, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask, sockets)
            nursery.start_soon(receive, sockets)
        await until(lambda: sockets.shared_pool.stats.leases == 5)
        await until(lambda: sockets.stats.leases == 5)
        own_echo.kill()
        with trio.fail_after(1):
            await until(lambda: len(errors) == 10)
    assert tasks() == set()
