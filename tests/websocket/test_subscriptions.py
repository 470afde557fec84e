import json
from typing import Any

import pytest
import trio
from websockets.trio.client import ClientConnection
from websockets.typing import Data

from nimblepool import CheckoutTimeout, PoolClosed, PoolUnavailable
from nimblepool_websocket import JSONRPC, SlowSubscriber, Subscription, WebSockets, WebSocketWorker, open_websockets
from tests.websocket.echo import Echo
from tests.websocket.peer import until


def number(message: Data) -> int:
    value: int = json.loads(message)["params"]
    return value


async def test_unsolicited_messages_go_to_every_subscriber_that_wants_them(uri: str) -> None:
    rpc = JSONRPC()
    async with open_websockets(uri, correlate=rpc) as sockets:
        async with sockets.subscribe() as everything, sockets.subscribe(lambda m: number(m) % 2) as odd:
            assert rpc.result(await sockets.request(rpc.call("tell", 5))) == 5
            assert [number(await anext(everything)) for _ in range(5)] == [0, 1, 2, 3, 4]
            assert [number(await anext(odd)) for _ in range(2)] == [1, 3]
            assert (everything.waiting, odd.waiting) == (0, 0)
        with pytest.raises(StopAsyncIteration):
            await anext(everything)


async def test_a_full_buffer_drops_the_oldest(uri: str) -> None:
    rpc = JSONRPC()
    async with open_websockets(uri, correlate=rpc) as sockets, sockets.subscribe(buffer=3) as messages:
        await sockets.request(rpc.call("tell", 10))
        assert messages.dropped == 7
        assert [number(await anext(messages)) for _ in range(3)] == [7, 8, 9]


async def test_a_full_buffer_can_end_the_subscription(uri: str) -> None:
    rpc = JSONRPC()
    async with (
        open_websockets(uri, correlate=rpc) as sockets,
        sockets.subscribe(buffer=3, overflow="close") as messages,
        sockets.subscribe() as other,
    ):
        await sockets.request(rpc.call("tell", 10))
        seen = []
        with pytest.raises(SlowSubscriber, match="3 messages"):
            async for message in messages:
                seen.append(number(message))  # noqa: PERF401 - it ends with an error
        assert seen == [0, 1, 2]
        assert other.waiting == 10


async def test_a_full_buffer_can_make_the_server_wait(uri: str) -> None:
    rpc = JSONRPC()
    done = trio.Event()

    async with open_websockets(uri, correlate=rpc) as sockets, trio.open_nursery() as nursery:

        async def ask() -> None:
            await sockets.request(rpc.call("tell", 50))
            done.set()

        async with sockets.subscribe(buffer=3, overflow="wait") as messages:
            nursery.start_soon(ask)
            await until(lambda: messages.waiting == 3)
            await trio.sleep(0.05)
            assert not done.is_set()
            assert [number(await anext(messages)) for _ in range(50)] == list(range(50))
            await done.wait()
            assert messages.dropped == 0


async def test_a_subscriber_that_leaves_makes_nobody_wait(uri: str) -> None:
    rpc = JSONRPC()
    async with open_websockets(uri, correlate=rpc) as sockets, trio.open_nursery() as nursery:
        async with sockets.subscribe(buffer=1, overflow="wait") as messages:
            nursery.start_soon(sockets.request, rpc.call("tell", 50))
            await until(lambda: messages.waiting == 1)
        assert rpc.result(await sockets.request(rpc.call("echo", 1), timeout=5)) == 1


async def test_a_cancelled_reader_loses_nothing(uri: str) -> None:
    rpc = JSONRPC()
    async with open_websockets(uri, correlate=rpc) as sockets, sockets.subscribe() as messages:
        with trio.move_on_after(0.02):
            await anext(messages)
        await sockets.request(rpc.call("tell", 2))
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(messages)
        assert [number(await anext(messages)) for _ in range(2)] == [0, 1]


async def test_the_sockets_are_kept_open_as_long_as_there_is_a_subscriber(own_echo: Echo) -> None:
    rpc = JSONRPC()
    opened: list[ClientConnection] = []

    async def on_open(ws: ClientConnection) -> None:
        opened.append(ws)

    worker = WebSocketWorker(own_echo.uri, on_open=on_open)
    async with open_websockets(worker, correlate=rpc, shared_size=2) as sockets:
        async with sockets.subscribe() as messages, sockets.subscribe():
            await until(lambda: len(opened) == 2)
            await opened[0].send('{"method": "abort"}')
            await until(lambda: len(opened) == 3)
            assert messages.losses == 1
            await sockets.request(rpc.call("tell", 1))
            assert number(await anext(messages)) == 0
        assert sockets.shared_pool.stats.min_size == 0


async def test_waiting_for_a_socket_has_its_time(own_echo: Echo) -> None:
    async with open_websockets(own_echo.uri, on_open_failure="wait") as sockets:
        own_echo.kill()
        with pytest.raises(CheckoutTimeout, match=r"0\.05"):
            async with sockets.subscribe(timeout=0.05):
                pass
    async with open_websockets(own_echo.uri) as sockets:
        with pytest.raises(PoolUnavailable):
            async with sockets.subscribe():
                pass
        assert sockets.shared_pool.stats.min_size == 0


async def test_a_pool_that_closes_ends_its_subscriptions(uri: str) -> None:
    kept: list[Subscription] = []
    ended: list[BaseException] = []

    async def read(sockets: WebSockets) -> None:
        async with sockets.subscribe() as messages:
            kept.append(messages)
            try:
                await anext(messages)
            except PoolClosed as error:
                ended.append(error)

    async with trio.open_nursery() as nursery, open_websockets(uri) as sockets:
        nursery.start_soon(read, sockets)
        await until(lambda: kept)
    assert len(ended) == 1


async def test_a_match_that_fails_ends_its_subscription_and_no_other(
    uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    rpc = JSONRPC()

    def match(message: Data) -> bool:
        raise RuntimeError("mine")

    async with (
        open_websockets(uri, correlate=rpc) as sockets,
        sockets.subscribe(match) as bad,
        sockets.subscribe() as good,
    ):
        await sockets.request(rpc.call("tell", 2))
        with pytest.raises(RuntimeError, match="mine"):
            await anext(bad)
        assert good.waiting == 2
    assert "match" in caplog.text


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"buffer": 0}, ValueError, "buffer must be 1 or more"),
        ({"overflow": "explode"}, ValueError, "overflow must be 'drop_oldest' or 'close' or 'wait'"),
        ({"match": 3}, TypeError, "match must be"),
        ({"timeout": -1}, ValueError, "timeout must be"),
    ],
)
async def test_a_bad_option_says_what_is_allowed(
    uri: str, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    async with open_websockets(uri) as sockets:
        with pytest.raises(error, match=text):
            async with sockets.subscribe(**options):
                pass
        assert sockets.shared_pool.stats.opened == 0
