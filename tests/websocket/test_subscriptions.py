import json
from typing import Any

import pytest
import trio
import trio.testing
from websockets.typing import Data

from nimblepool import CheckoutTimeout, PoolClosed, PoolUnavailable
from nimblepool_websocket import (
    JSONRPC,
    RequestLost,
    SlowSubscriber,
    Socket,
    Subscription,
    WebSockets,
    WebSocketWorker,
    open_websockets,
)
from tests.websocket.echo import Echo
from tests.websocket.peer import PATIENCE, Peer, serving, until


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


async def test_two_sockets_that_wait_for_room_both_go_on() -> None:
    async def tell(peer: Peer) -> None:
        for n in range(5):
            await peer.text(json.dumps({"params": n}))
        await peer.until_closed()

    async with serving(tell) as server, open_websockets(server.uri, shared_size=2) as sockets:
        async with sockets.subscribe(buffer=1, overflow="wait") as messages:
            await sockets.shared_pool.wait_ready(2)
            await until(lambda: messages.waiting)
            await trio.testing.wait_all_tasks_blocked(0.05)
            with trio.fail_after(PATIENCE):
                assert sorted([number(await anext(messages)) for _ in range(10)]) == sorted([*range(5)] * 2)
        assert messages.dropped == 0


async def test_a_second_reader_is_refused(uri: str) -> None:
    async with open_websockets(uri) as sockets, sockets.subscribe() as messages:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(anext, messages)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError, match="another task"):
                await anext(messages)
            await sockets.send("plain")
        await sockets.send("next")
        assert await anext(messages) == "next"


async def test_the_error_at_the_end_is_the_same_however_often_one_reads(uri: str) -> None:
    lengths = set()
    async with open_websockets(uri) as sockets, sockets.subscribe(buffer=1, overflow="close") as messages:
        for text in ("1", "2"):
            await sockets.send(text)
        await until(lambda: messages.dropped)
        await anext(messages)
        for _ in range(3):
            with pytest.raises(SlowSubscriber) as caught:
                await anext(messages)
            lengths.add(len(caught.traceback))
    assert len(lengths) == 1


async def test_what_was_read_from_a_lost_socket_reaches_a_slow_subscriber() -> None:
    async def tell_and_go(peer: Peer) -> None:
        await peer.receive()
        for n in range(5):
            await peer.text(json.dumps({"params": n}))
        await trio.sleep(0.05)

    rpc = JSONRPC()
    async with (
        serving(tell_and_go) as server,
        open_websockets(server.uri, correlate=rpc) as sockets,
        sockets.subscribe(buffer=1, overflow="wait") as messages,
    ):
        with trio.fail_after(1), pytest.raises(RequestLost):
            await sockets.request(rpc.call("x"))
        assert [number(await anext(messages)) for _ in range(5)] == [0, 1, 2, 3, 4]
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
    opened: list[Socket] = []

    async def on_open(ws: Socket) -> None:
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


async def test_what_was_kept_open_before_is_kept_open_afterwards(uri: str) -> None:
    async with open_websockets(uri, shared_size=3, shared_min_size=1) as sockets:
        await sockets.shared_pool.wait_ready(1)
        for expected in (1, 2):
            sockets.shared_pool.resize(min_size=expected)
            async with sockets.subscribe():
                async with sockets.subscribe():
                    assert sockets.shared_pool.stats.min_size == 3
                assert sockets.shared_pool.stats.min_size == 3
            assert sockets.shared_pool.stats.min_size == expected
        async with sockets.subscribe():
            sockets.shared_pool.resize(min_size=1, max_size=2)
        assert sockets.shared_pool.stats.min_size == 1


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
