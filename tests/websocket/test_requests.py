import json
import logging
from collections.abc import Hashable
from typing import Any, cast

import pytest
import trio
import trio.testing
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close, Frame, Opcode
from websockets.typing import Data

from nimblepool import DEFAULT, CheckoutTimeout, LeaseRevoked, PoolUnavailable
from nimblepool.testing import check_balance, check_worker
from nimblepool_websocket import (
    JSONRPC,
    JSONRPCError,
    RequestLost,
    RequestTimeout,
    WebSockets,
    WebSocketWorker,
    open_websockets,
)
from nimblepool_websocket._correlate import correlator_from
from nimblepool_websocket._hub import Hub
from nimblepool_websocket._shared_worker import SharedWorker
from tests.websocket.echo import Echo
from tests.websocket.figures import tasks
from tests.websocket.peer import PATIENCE, Peer, say_nothing, serving, until


def in_flight(sockets: WebSockets) -> int:
    return sockets.shared_pool.stats.leases


async def requests_of(peer: Peer, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while len(found) < count:
        frame = await peer.receive()
        assert frame is not None
        if frame.opcode is Opcode.TEXT:
            found.append(json.loads(bytes(frame.data)))
    return found


async def test_the_shared_worker_keeps_its_side_of_the_contract(uri: str) -> None:
    await check_worker(SharedWorker(WebSocketWorker(uri), correlator_from(JSONRPC()), Hub(), 10))
    assert tasks() == set()


async def test_replies_go_to_those_who_asked(uri: str) -> None:
    rpc = JSONRPC()

    async def ask(sockets: WebSockets, n: int) -> None:
        assert rpc.result(await sockets.request(rpc.call("echo", n))) == n

    async with open_websockets(uri, correlate=rpc) as sockets:
        async with trio.open_nursery() as nursery:
            for n in range(300):
                nursery.start_soon(ask, sockets, n)
        assert sockets.shared_pool.stats.opened == 1
        assert in_flight(sockets) == 0
        assert sockets.stats.opened == 0
        check_balance(sockets.shared_pool)
    assert tasks() == set()


async def test_the_server_may_answer_in_any_order(uri: str) -> None:
    rpc = JSONRPC()
    results: list[int] = []

    async def ask(sockets: WebSockets, n: int) -> None:
        results.append(rpc.result(await sockets.request(rpc.call("hold", n))))

    async with open_websockets(uri, correlate=rpc) as sockets, trio.open_nursery() as nursery:
        for n in range(5):
            nursery.start_soon(ask, sockets, n)
            await until(lambda n=n: in_flight(sockets) == n + 1)  # type: ignore[misc]
            await sockets.request(rpc.call("echo"))
        await sockets.request(rpc.call("release"))
        await until(lambda: len(results) == 5)
    assert sorted(results) == list(range(5))


async def test_an_error_of_the_server_is_the_clients(uri: str) -> None:
    rpc = JSONRPC()
    async with open_websockets(uri, correlate=rpc) as sockets:
        with pytest.raises(JSONRPCError, match="no") as caught:
            rpc.result(await sockets.request(rpc.call("fail", [1])))
        assert caught.value.data == [1]


async def test_a_batch_is_one_request_like_any_other() -> None:
    async def answer(peer: Peer) -> None:
        while (frame := await peer.receive()) is not None and frame.opcode is Opcode.TEXT:
            calls = json.loads(bytes(frame.data))
            await peer.text(json.dumps([{"id": each["id"], "result": 0} for each in reversed(calls)]))
        await peer.close(1000)

    rpc = JSONRPC()
    async with serving(answer) as server, open_websockets(server.uri, correlate=rpc) as sockets:
        reply = await sockets.request(f"[{rpc.call('a')}, {rpc.call('b')}]")
        assert [each["id"] for each in json.loads(reply)] == [2, 1]


async def test_one_function_can_correlate_both_ways(uri: str) -> None:
    async with open_websockets(uri, correlate=lambda message: message[:2]) as sockets:
        assert await sockets.request("7 hello") == "7 hello"
        assert await sockets.request(b"8 hello") == b"8 hello"
        assert await sockets.request(bytearray(b"9 hello")) == b"9 hello"


async def test_requests_beyond_max_in_flight_wait_and_more_sockets_are_opened_first(uri: str) -> None:
    rpc = JSONRPC()

    async def hold(sockets: WebSockets) -> None:
        await sockets.request(rpc.call("hold"))

    async with open_websockets(uri, correlate=rpc, shared_size=2, max_in_flight=2) as sockets:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(hold, sockets)
            await until(lambda: in_flight(sockets) == 4)
            assert sockets.shared_pool.stats.size == 2
            with pytest.raises(CheckoutTimeout):
                await sockets.request(rpc.call("echo"), timeout=0.05)
            await sockets.shared_pool.wait_ready(2)
            async with sockets.connection() as ws:
                await until(lambda: True)
                await trio.sleep(0.05)
                await ws.send('{"method": "release", "id": 0}')
                await ws.recv()
        assert in_flight(sockets) == 0


async def test_a_request_without_an_id_is_refused(uri: str) -> None:
    rpc = JSONRPC()
    async with open_websockets(uri, correlate=rpc) as sockets:
        with pytest.raises(ValueError, match="send"):
            await sockets.request(rpc.notification("gone"))
        with pytest.raises(TypeError, match="str or bytes, not dict"):
            await sockets.request(cast("str", {"id": 1}))
        with pytest.raises(UnicodeEncodeError):
            await sockets.request('{"id": 1, "method": "\ud800"}')
        assert sockets.shared_pool.stats.opened == 0


async def test_without_correlate_there_are_no_requests(uri: str) -> None:
    async with open_websockets(uri) as sockets:
        with pytest.raises(TypeError, match="correlate"):
            await sockets.request("hello")


async def test_an_id_that_is_in_use_is_refused(uri: str) -> None:
    async with open_websockets(uri, correlate=JSONRPC()) as sockets, trio.open_nursery() as nursery:
        held = '{"id": 5, "method": "hold"}'
        nursery.start_soon(sockets.request, held)
        await until(lambda: in_flight(sockets))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ValueError, match="id 5 is in flight"):
            await sockets.request(held)
        await sockets.request('{"id": 6, "method": "release"}')


async def test_a_cancelled_request_forgets_its_reply(uri: str) -> None:
    rpc = JSONRPC()
    async with open_websockets(uri, correlate=rpc) as sockets, sockets.subscribe() as messages:
        with trio.move_on_after(0.05):
            await sockets.request('{"id": 5, "method": "hold"}')
        with pytest.raises(ValueError, match="id 5 is in flight"):
            await sockets.request('{"id": 5, "method": "echo"}')
        await sockets.request('{"id": 6, "method": "release"}')
        assert json.loads(await sockets.request('{"id": 5, "method": "echo", "params": "new"}'))["result"] == "new"
        assert messages.waiting == 0
        assert sockets.shared_pool.stats.opened == 1


async def test_a_request_that_takes_too_long_says_that_it_was_sent(uri: str) -> None:
    rpc = JSONRPC()
    async with open_websockets(uri, correlate=rpc, request_timeout=0.05) as sockets:
        for timeout in (DEFAULT, 0.05):
            with pytest.raises(RequestTimeout, match="may have acted") as caught:
                await sockets.request(rpc.call("nothing"), timeout=timeout)
            assert isinstance(caught.value, TimeoutError)
            assert caught.value.was_sent
        assert rpc.result(await sockets.request(rpc.call("echo", 3), timeout=None)) == 3
        assert sockets.shared_pool.stats.opened == 1


async def test_deadlines_are_kept_in_whatever_order_they_come(uri: str) -> None:
    rpc = JSONRPC()
    late: list[float | None] = []

    async def ask(sockets: WebSockets, timeout: float | None) -> None:
        with pytest.raises(RequestTimeout, match="no reply"):
            await sockets.request(rpc.call("nothing"), timeout=timeout)
        late.append(timeout)

    async with open_websockets(uri, correlate=rpc) as sockets, trio.open_nursery() as nursery:
        await sockets.request(rpc.call("echo"))
        for timeout in (None, 60.0, 0.15, 0.05, 0.1, 0.15):
            nursery.start_soon(ask, sockets, timeout)
            await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(1):
            await until(lambda: len(late) == 4)
        assert late == [0.05, 0.1, 0.15, 0.15]
        assert in_flight(sockets) == 2
        nursery.cancel_scope.cancel()


async def test_a_reply_that_comes_too_late_is_dropped_and_its_id_is_free_again(uri: str) -> None:
    async with (
        open_websockets(uri, correlate=JSONRPC(), request_timeout=0.05) as sockets,
        sockets.subscribe() as messages,
    ):
        with pytest.raises(RequestTimeout):
            await sockets.request('{"id": 5, "method": "hold"}')
        async with sockets.shared_pool.checkout() as leased:
            assert leased.resource.exchange.in_flight == 0
        with pytest.raises(ValueError, match="id 5 is in flight"):
            await sockets.request('{"id": 5, "method": "echo"}')
        await sockets.request('{"id": 6, "method": "release"}')
        await sockets.request('{"id": 5, "method": "echo"}')
        assert messages.waiting == 0


async def test_a_request_that_could_not_be_sent_in_time_says_so() -> None:
    rpc = JSONRPC()
    async with serving(say_nothing) as server:
        worker = WebSocketWorker(server.uri, compression=None, close_timeout=0.1, send_timeout=60)
        async with open_websockets(worker, correlate=rpc) as sockets, trio.open_nursery() as nursery:
            nursery.start_soon(sockets.send, b"x" * 20_000_000)
            await until(lambda: in_flight(sockets))
            await trio.sleep(0.05)
            with pytest.raises(RequestTimeout, match="it was not sent") as caught:
                await sockets.request(rpc.call("echo"), timeout=0.05)
            assert not caught.value.was_sent
            nursery.cancel_scope.cancel()


async def test_a_server_that_no_longer_reads_costs_the_socket_after_send_timeout() -> None:
    rpc = JSONRPC()
    async with serving(say_nothing) as server:
        worker = WebSocketWorker(server.uri, compression=None, send_timeout=0.1)
        with trio.fail_after(PATIENCE):
            async with open_websockets(worker, correlate=rpc) as sockets:
                with pytest.raises(RequestLost) as caught:
                    await sockets.send(b"x" * 20_000_000)
                assert caught.value.was_sent


async def test_a_message_without_a_reply_can_be_sent(uri: str) -> None:
    rpc = JSONRPC()
    async with open_websockets(uri, correlate=rpc) as sockets, sockets.subscribe() as messages:
        await sockets.send("plain")
        assert await anext(messages) == "plain"
        await sockets.send(rpc.notification("nothing"))


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_a_lost_socket_fails_its_requests_at_once_and_says_that_they_were_sent(uri: str, end: str) -> None:
    rpc = JSONRPC()
    errors: list[RequestLost] = []

    async def ask(sockets: WebSockets) -> None:
        with pytest.raises(RequestLost, match="may have acted") as caught:
            await sockets.request(rpc.call("nothing"))
        errors.append(caught.value)

    async with open_websockets(uri, correlate=rpc) as sockets:
        with trio.fail_after(1):
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(ask, sockets)
                await until(lambda: in_flight(sockets) == 20)
                await sockets.send(rpc.notification(end, [1012, "restart"]))
        assert len(errors) == 20
        for error in errors:
            assert isinstance(error, ConnectionClosed)
            assert error.was_sent
            assert (error.code, error.reason) == ((1012, "restart") if end == "close" else (1006, ""))
        assert rpc.result(await sockets.request(rpc.call("echo", 1))) == 1
        check_balance(sockets.shared_pool)


async def test_replies_that_came_before_the_end_still_count() -> None:
    many = 500

    async def answer_all_and_go(peer: Peer) -> None:
        replies = [json.dumps({"id": each["id"], "result": "kept"}) for each in await requests_of(peer, many)]
        frames = [Frame(Opcode.TEXT, reply.encode()) for reply in replies]
        frames.append(Frame(Opcode.CLOSE, Close(1001, "").serialize()))
        await peer.stream.send_all(b"".join(frame.serialize(mask=False) for frame in frames))
        await peer.receive()

    rpc = JSONRPC()
    results: list[str] = []

    async def ask(sockets: WebSockets) -> None:
        results.append(rpc.result(await sockets.request(rpc.call("x"), timeout=2)))

    async with (
        serving(answer_all_and_go) as server,
        open_websockets(WebSocketWorker(server.uri, max_queue=None), correlate=rpc) as sockets,
        trio.open_nursery() as nursery,
    ):
        for _ in range(many):
            nursery.start_soon(ask, sockets)
    assert results == ["kept"] * many


@pytest.mark.parametrize("retry", [True, False])
async def test_only_what_was_never_sent_is_sent_again(retry: bool) -> None:
    stuck, arrived = trio.Event(), []

    async def serve(peer: Peer) -> None:
        if not stuck.is_set():
            # Reads nothing: what the client sends gets stuck, and with it what comes after.
            await stuck.wait()
            return
        while (frame := await peer.receive()) is not None and frame.opcode is Opcode.TEXT:
            request = json.loads(bytes(frame.data))
            arrived.append(request["params"])
            await peer.text(json.dumps({"id": request["id"], "result": request["params"]}))

    rpc = JSONRPC()
    outcomes: dict[str, Any] = {}

    async def ask(sockets: WebSockets, name: str, filler: str = "") -> None:
        try:
            call = rpc.call("x", name, filler=filler)
            outcomes[name] = rpc.result(await sockets.request(call, retry=retry))
        except RequestLost as error:
            outcomes[name] = error

    async with serving(serve) as server:
        worker = WebSocketWorker(server.uri, compression=None, close_timeout=0.1)
        async with open_websockets(worker, correlate=rpc) as sockets, trio.open_nursery() as nursery:
            nursery.start_soon(ask, sockets, "stuck", "x" * 20_000_000)
            await until(lambda: in_flight(sockets) == 1)
            await trio.sleep(0.05)
            for n in range(3):
                nursery.start_soon(ask, sockets, f"behind {n}")
            await until(lambda: in_flight(sockets) == 4)
            stuck.set()
            await until(lambda: len(outcomes) == 4)
            assert outcomes["stuck"].was_sent
            for n in range(3):
                if retry:
                    assert outcomes[f"behind {n}"] == f"behind {n}"
                else:
                    assert not outcomes[f"behind {n}"].was_sent
                    assert "before it was sent" in str(outcomes[f"behind {n}"])
            assert sorted(arrived) == ([f"behind {n}" for n in range(3)] if retry else [])


async def test_a_server_that_cannot_be_reached_is_told_of(own_echo: Echo) -> None:
    rpc = JSONRPC()
    async with open_websockets(own_echo.uri, correlate=rpc) as sockets:
        own_echo.kill()
        with pytest.raises(PoolUnavailable) as caught:
            await sockets.request(rpc.call("echo"))
        assert isinstance(caught.value.__cause__, OSError)


async def test_a_correlate_that_fails_costs_nobody_but_the_log(uri: str, caplog: pytest.LogCaptureFixture) -> None:
    def correlate(message: Data) -> Hashable:
        if message == "bad":
            raise RuntimeError("mine")
        return cast("Hashable", []) if message == "unhashable" else message

    async with open_websockets(uri, correlate=correlate) as sockets, sockets.subscribe() as messages:
        for text in ("bad", "unhashable"):
            await sockets.send(text)
            assert await anext(messages) == text
        assert await sockets.request("good") == "good"
        assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2


async def test_a_request_of_the_servers_own_answers_nothing(uri: str) -> None:
    rpc = JSONRPC()
    async with open_websockets(uri, correlate=rpc) as sockets, sockets.subscribe() as messages:
        call = rpc.call("ask back", 3)
        assert rpc.result(await sockets.request(call)) == 3
        asked = json.loads(await anext(messages))
        assert (asked["method"], asked["id"]) == ("whoami", rpc.request_id(call))


async def test_requests_in_flight_have_time_to_end_when_the_pool_closes(uri: str) -> None:
    rpc = JSONRPC()
    results: list[int] = []

    async def ask(sockets: WebSockets) -> None:
        results.append(rpc.result(await sockets.request(rpc.call("later", 0.1))))

    async with trio.open_nursery() as nursery, open_websockets(uri, correlate=rpc) as sockets:
        nursery.start_soon(ask, sockets)
        await until(lambda: in_flight(sockets))
    assert results == [0.1]


async def test_requests_that_outlast_the_grace_are_revoked(uri: str) -> None:
    rpc = JSONRPC()
    errors: list[BaseException] = []

    async def ask(sockets: WebSockets) -> None:
        try:
            await sockets.request(rpc.call("nothing"))
        except Exception as error:
            errors.append(error)

    async with trio.open_nursery() as nursery, open_websockets(uri, correlate=rpc, close_grace=0.05) as sockets:
        nursery.start_soon(ask, sockets)
        await until(lambda: in_flight(sockets))
    (error,) = errors
    assert isinstance(error, RequestLost)
    assert error.was_sent
    assert isinstance(error.__cause__, LeaseRevoked)
    assert str(error.__cause__) in str(error)
    assert tasks() == set()
