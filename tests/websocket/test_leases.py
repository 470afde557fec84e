from collections.abc import AsyncIterator
from typing import cast

import pytest
import trio
import trio.lowlevel
from websockets.exceptions import ConcurrencyError, ConnectionClosed
from websockets.frames import Opcode

from nimblepool import LeaseExpired, PoolError, open_pool
from nimblepool.testing import check_balance, check_worker
from nimblepool_websocket import LeasedSocket, SendInterrupted, Socket, SocketClosed, WebSocketWorker, open_websockets
from tests.websocket.figures import tasks
from tests.websocket.peer import PATIENCE, Listener, Peer, say_nothing, serving, until

TELL = '{{"method": "tell", "params": {}, "id": 0}}'
MANY = 40


async def nothing(_: Socket) -> None:
    """Find the socket clean."""


def brief(server: Listener) -> WebSocketWorker:
    """Return a worker that does not wait long for a server that will not close in good order."""
    return WebSocketWorker(server.uri, close_timeout=0.1)


async def half_a_frame(peer: Peer) -> None:
    await peer.receive()
    await peer.stream.send_all(b"\x81\x05he")
    await peer.until_closed()


async def half_a_message(peer: Peer) -> None:
    await peer.receive()
    await peer.frame(Opcode.TEXT, b"half", fin=False)
    await peer.until_closed()


async def test_the_worker_keeps_its_side_of_the_contract(uri: str) -> None:
    await check_worker(WebSocketWorker(uri))
    assert tasks() == set()


async def test_a_socket_is_lent_again(uri: str) -> None:
    async with open_websockets(uri) as sockets:
        for n in range(5):
            async with sockets.connection() as ws:
                await ws.send(f"message {n}")
                assert await ws.recv() == f"message {n}"
        assert sockets.stats.opened == 1
    assert tasks() == set()


async def test_the_lease_has_the_drivers_api(uri: str) -> None:
    async def fragments() -> AsyncIterator[str]:
        yield "gh"
        yield "i"

    async with open_websockets(uri) as sockets, sockets.connection() as ws:
        await ws.send(b"abc")
        assert await ws.recv() == b"abc"
        await ws.send("abc", text=False)
        assert await ws.recv(decode=True) == "abc"
        await ws.send(["d", "e", "f"])
        assert [part async for part in ws.recv_streaming()] == ["def"]
        await ws.send(fragments())
        assert await ws.recv() == "ghi"
        pong = await ws.ping()
        await pong.wait()
        assert ws.latency > 0
        await ws.pong()
        assert ws.remote_address[1] == int(uri.rsplit(":", 1)[1])
        assert ws.local_address[0] == "127.0.0.1"
        assert (ws.state.name, ws.close_code, ws.close_reason, ws.subprotocol) == ("OPEN", None, None, None)
        await ws.aclose(1001, "enough")
        await ws.wait_closed()
        assert (ws.close_code, ws.close_reason) == (1001, "enough")
        assert "closed" in repr(ws)


async def test_iterating_ends_with_a_normal_close(uri: str) -> None:
    async with open_websockets(uri) as sockets, sockets.connection() as ws:
        await ws.send("one")
        await ws.send('{"method": "close", "params": [1000, "bye"]}')
        assert [message async for message in ws] == ["one"]


async def test_a_lease_that_has_ended_refuses(uri: str) -> None:
    async with open_websockets(uri) as sockets:
        async with sockets.connection() as ws:
            pass
        for use in (ws.recv, ws.ping, ws.pong, ws.aclose, ws.wait_closed, ws.recv_streaming):
            with pytest.raises(LeaseExpired):
                use()
        with pytest.raises(LeaseExpired):
            await ws.send("x")
        for name in ("raw", "state", "latency", "request", "response", "subprotocol", "close_code", "local_address"):
            with pytest.raises(LeaseExpired):
                getattr(ws, name)
        with pytest.raises(LeaseExpired):
            _ = [message async for message in ws]
        with pytest.raises(LeaseExpired):
            ws.remove()
        assert repr(ws) == "<LeasedSocket, not held>"


async def test_a_lease_that_was_not_entered_refuses(uri: str) -> None:
    async with open_websockets(uri) as sockets:
        with pytest.raises(LeaseExpired, match="async with"):
            await sockets.connection().recv()
        with pytest.raises(LeaseExpired, match="async with"):
            sockets.connection().remove()


async def test_an_iteration_ends_with_its_lease(uri: str) -> None:
    async with open_websockets(uri) as sockets:
        async with sockets.connection() as ws:
            await ws.send("one")
            messages = aiter(ws)
            assert await anext(messages) == "one"
        with pytest.raises(LeaseExpired):
            await anext(messages)


@pytest.mark.parametrize("count", [1, MANY])
async def test_a_socket_with_unread_messages_is_not_lent_on(uri: str, count: int) -> None:
    async with open_websockets(uri) as sockets:
        async with sockets.connection() as ws:
            await ws.send(TELL.format(count))
            await ws.recv()
            await until(lambda: count == 1 or ws.raw.recv_messages.paused)
            if count == 1:
                await until(lambda: ws.raw.recv_messages.recv_frames.statistics().current_buffer_used)
        async with sockets.connection() as ws:
            await ws.send("mine")
            assert await ws.recv() == "mine"
        assert sockets.stats.opened == 2
        await until(lambda: sockets.stats.closed == 1)


async def test_what_arrives_while_a_socket_rests_is_for_nobody() -> None:
    begin = trio.Event()

    async def late(peer: Peer) -> None:
        await begin.wait()
        await peer.text("for whom?")
        await peer.until_closed()

    async with serving(late) as server, open_websockets(server.uri) as sockets:
        async with sockets.connection() as ws:
            raw = ws.raw
        begin.set()
        await until(lambda: raw.recv_messages.recv_frames.statistics().current_buffer_used)
        assert sockets.stats.size == 1
        async with sockets.connection() as ws:
            assert ws.raw is not raw
        assert server.accepted == 2


async def test_half_a_frame_at_the_end_of_a_lease_costs_the_socket() -> None:
    async with serving(half_a_frame) as server, open_websockets(brief(server)) as sockets:
        async with sockets.connection() as ws:
            await ws.send("go")
            await until(lambda: ws.raw.protocol.reader.buffer)
        async with sockets.connection():
            pass
        assert server.accepted == 2


async def test_half_a_message_at_the_end_of_a_lease_costs_the_socket() -> None:
    async with serving(half_a_message) as server, open_websockets(brief(server)) as sockets:
        async with sockets.connection() as ws:
            await ws.send("go")
            with trio.move_on_after(0.05):
                await ws.recv()
            assert ws.raw.recv_messages.recv_frames.statistics().current_buffer_used == 1
        async with sockets.connection():
            pass
        assert server.accepted == 2


@pytest.mark.filterwarnings("ignore:Async generator 'websockets:ResourceWarning")
async def test_a_message_that_is_not_streamed_to_its_end_costs_the_socket() -> None:
    async with serving(half_a_message) as server, open_websockets(brief(server)) as sockets:
        async with sockets.connection() as ws:
            await ws.send("go")
            stream = ws.recv_streaming()
            assert await anext(stream) == "half"
        async with sockets.connection():
            pass
        assert server.accepted == 2
        await stream.aclose()


async def test_a_greeting_is_for_the_first_client(uri: str) -> None:
    async with open_websockets(f"{uri}/greeting", min_size=1) as sockets:
        await sockets.pool.wait_ready()
        await trio.sleep(0.05)
        async with sockets.connection() as ws:
            assert await ws.recv() == "welcome"
        async with sockets.connection() as ws:
            await ws.send("mine")
            assert await ws.recv() == "mine"
        assert sockets.stats.opened == 1


@pytest.mark.parametrize("clean", [True, False])
async def test_resync_decides_whether_an_unclean_socket_is_kept(uri: str, clean: bool) -> None:
    async def resync(ws: Socket) -> None:
        await ws.send("all clear")
        while clean and await ws.recv() != "all clear":
            pass
        if not clean:
            await until(lambda: ws.raw.recv_messages.recv_frames.statistics().current_buffer_used)

    async with open_websockets(WebSocketWorker(uri, resync=resync)) as sockets:
        async with sockets.connection() as ws:
            await ws.send(TELL.format(5))
            await ws.recv()
            await until(lambda: ws.raw.recv_messages.recv_frames.statistics().current_buffer_used)
        async with sockets.connection() as ws:
            await ws.send("mine")
            assert await ws.recv() == "mine"
        assert sockets.stats.opened == (1 if clean else 2)
        check_balance(sockets.pool)


@pytest.mark.parametrize("resync", [True, False])
async def test_a_body_that_fails_costs_the_socket_unless_it_can_be_cleaned(uri: str, resync: bool) -> None:
    async def clean(ws: Socket) -> None:
        await ws.send("all clear")
        while await ws.recv() != "all clear":
            pass

    async with open_websockets(WebSocketWorker(uri, resync=clean if resync else None)) as sockets:
        with pytest.raises(RuntimeError, match="mine"):
            async with sockets.connection() as ws:
                await ws.send("hello")
                raise RuntimeError("mine")
        async with sockets.connection() as ws:
            await ws.send("mine")
            assert await ws.recv() == "mine"
        assert sockets.stats.opened == (1 if resync else 2)


async def test_a_cancelled_receive_loses_nothing(uri: str) -> None:
    async with open_websockets(uri) as sockets, sockets.connection() as ws:
        with trio.move_on_after(0.01):
            await ws.recv()
        await ws.send("kept")
        assert await ws.recv() == "kept"


async def test_a_send_cut_short_ends_the_use_of_the_socket() -> None:
    async with serving(say_nothing) as server:
        worker = WebSocketWorker(server.uri, resync=nothing, close_timeout=0.1, compression=None)
        async with open_websockets(worker) as sockets:
            async with sockets.connection() as ws:
                with trio.move_on_after(0.05) as scope:
                    await ws.send(b"x" * 20_000_000)
                assert scope.cancelled_caught
                with pytest.raises(SendInterrupted, match="cut short"):
                    await ws.send("lost for ever")
            with trio.fail_after(PATIENCE):
                async with sockets.connection():
                    pass
            assert server.accepted == 2


async def test_a_message_of_the_wrong_type_costs_nothing(uri: str) -> None:
    async with open_websockets(uri) as sockets:
        async with sockets.connection() as ws:
            with pytest.raises(TypeError):
                await ws.send(cast("str", {"a": 1}))
            await ws.send("fine")
            assert await ws.recv() == "fine"
        async with sockets.connection():
            pass
        assert sockets.stats.opened == 1


async def test_two_tasks_cannot_receive_at_once(uri: str) -> None:
    async with open_websockets(uri) as sockets, sockets.connection() as ws, trio.open_nursery() as nursery:
        nursery.start_soon(ws.recv)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ConcurrencyError):
            await ws.recv()
        nursery.cancel_scope.cancel()


async def test_a_task_that_still_receives_does_not_get_the_next_clients_messages(uri: str) -> None:
    got: list[object] = []

    async def straggle(ws: LeasedSocket) -> None:
        try:
            got.append(await ws.recv())
        except SocketClosed as error:
            got.append(error)

    async with open_websockets(uri) as sockets, trio.open_nursery() as nursery:
        async with sockets.connection() as ws:
            nursery.start_soon(straggle, ws)
            await trio.testing.wait_all_tasks_blocked()
        async with sockets.connection() as ws:
            await ws.send("mine")
            assert await ws.recv() == "mine"
        await until(lambda: got)
        assert isinstance(got[0], SocketClosed)


async def test_a_client_can_have_its_socket_removed(uri: str) -> None:
    async with open_websockets(uri) as sockets:
        async with sockets.connection() as ws:
            ws.remove("it was odd")
        async with sockets.connection():
            pass
        assert sockets.stats.opened == 2


async def test_the_worker_serves_a_plain_pool(uri: str) -> None:
    async with open_pool(WebSocketWorker(uri), ping_after=0.0) as pool:
        for _ in range(3):
            async with pool.checkout() as lease:
                await lease.resource.send("hello")
                assert await lease.resource.recv() == "hello"
        assert pool.stats.opened == 1


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999])
async def test_a_close_by_the_server_tells_code_and_reason(uri: str, code: int) -> None:
    async with open_websockets(uri) as sockets:
        with pytest.raises(ConnectionClosed) as caught:
            async with sockets.connection() as ws:
                await ws.send(f'{{"method": "close", "params": [{code}, "because"]}}')
                await ws.recv()
        error = caught.value
        assert isinstance(error, SocketClosed)
        assert isinstance(error, PoolError)
        assert (error.code, error.reason) == (code, "because")
        assert str(code) in str(error)
        assert type(error).__name__ == ("SocketClosedOK" if code in {1000, 1001} else "SocketClosedError")
        await until(lambda: not sockets.stats.size)
        check_balance(sockets.pool)


@pytest.mark.parametrize("use", ["send", "recv", "ping", "recv_streaming"])
async def test_every_method_tells_of_a_lost_socket(uri: str, use: str) -> None:
    async with open_websockets(uri) as sockets, sockets.connection() as ws:
        await ws.send('{"method": "abort"}')
        await ws.wait_closed()
        with pytest.raises(SocketClosed) as caught:
            match use:
                case "send":
                    await ws.send("x")
                case "recv":
                    await ws.recv()
                case "ping":
                    await ws.ping()
                case _:
                    _ = [part async for part in ws.recv_streaming()]
        assert (caught.value.code, caught.value.reason) == (1006, "")
