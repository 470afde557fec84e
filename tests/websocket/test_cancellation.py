import json
import random
import socket
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
import trio
import trio.lowlevel
import trio.testing
from websockets.frames import Opcode

from nimblepool import LeaseExpired
from nimblepool.testing import check_balance, sweep
from nimblepool_websocket import (
    JSONRPC,
    LeasedSocket,
    Socket,
    SocketClosed,
    WebSockets,
    WebSocketWorker,
    open_websockets,
)
from tests.websocket.figures import tasks
from tests.websocket.peer import PATIENCE, Peer, serving, until

REQUESTS = 2500

Use = Callable[[WebSockets, JSONRPC], Awaitable[object]]


async def lease(sockets: WebSockets, _: JSONRPC) -> None:
    async with sockets.connection() as ws:
        await ws.send("mine")
        assert await ws.recv() == "mine"


async def fragments(sockets: WebSockets, _: JSONRPC) -> None:
    async with sockets.connection() as ws:
        await ws.send(["mi", "ne"])
        assert await ws.recv() == "mine"


async def ping(sockets: WebSockets, _: JSONRPC) -> None:
    async with sockets.connection() as ws:
        pong = await ws.ping()
        await pong.wait()


async def close(sockets: WebSockets, _: JSONRPC) -> None:
    async with sockets.connection() as ws:
        await ws.aclose()


async def request(sockets: WebSockets, rpc: JSONRPC) -> None:
    assert rpc.result(await sockets.request(rpc.call("echo", "mine"))) == "mine"


async def send(sockets: WebSockets, rpc: JSONRPC) -> None:
    await sockets.send(rpc.notification("nothing"))


async def subscribe(sockets: WebSockets, rpc: JSONRPC) -> None:
    async with sockets.subscribe() as messages:
        await sockets.request(rpc.call("tell", 1))
        await anext(messages)


async def check(sockets: WebSockets, rpc: JSONRPC) -> None:
    """Whoever comes next gets their own replies, and nobody waits any more."""
    async with sockets.connection() as one, sockets.connection() as two:
        for n, ws in enumerate((one, two)):
            await ws.send(f"check {n}")
            assert await ws.recv() == f"check {n}"
    assert rpc.result(await sockets.request(rpc.call("echo", "check"))) == "check"
    await until(lambda: not sockets.shared_pool.stats.leases)
    assert sockets.stats.leases == sockets.shared_pool.stats.leases == 0
    check_balance(sockets.pool)
    check_balance(sockets.shared_pool)


@pytest.mark.parametrize("use", [lease, fragments, ping, close, request, send, subscribe], ids=lambda u: u.__name__)
async def test_cancelled_at_every_checkpoint_it_leaves_nothing_behind(uri: str, use: Use) -> None:
    rpc = JSONRPC()
    async with open_websockets(uri, correlate=rpc, max_size=2) as sockets:
        await check(sockets, rpc)
        with trio.fail_after(PATIENCE):
            runs = await sweep(lambda: use(sockets, rpc), lambda: check(sockets, rpc))
        assert runs >= 4
    assert tasks() == set()


@pytest.mark.parametrize("use", [lease, request, subscribe], ids=lambda u: u.__name__)
async def test_cancelled_while_the_pool_opens_and_closes_it_leaves_nothing_behind(uri: str, use: Use) -> None:
    async def scenario() -> None:
        rpc = JSONRPC()
        async with open_websockets(uri, correlate=rpc) as sockets:
            await use(sockets, rpc)

    async def after() -> None:
        assert tasks() == set()

    with trio.fail_after(PATIENCE):
        assert await sweep(scenario, after) >= 6


LONG = 1_000_000
"""Bytes; more than the small buffers of `shrink` hold."""


def shrink(ws: LeasedSocket) -> None:
    """Let the kernel take little at a time, so that a long send has many checkpoints."""
    cast("trio.SocketStream", ws.raw.stream).setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 200_000)


async def resynced(sockets: WebSockets, _: JSONRPC) -> None:
    async with sockets.connection() as ws:
        for number in range(3):  # echoed in order, so that the marker of `resync` comes last
            await ws.send(f"unread {number}")
        await ws.recv()
    async with sockets.connection() as ws:
        await ws.send("mine")
        assert await ws.recv() == "mine"


async def full(sockets: WebSockets, _: JSONRPC) -> None:
    async with sockets.connection() as ws:
        await ws.send(json.dumps({"method": "tell", "params": 40}))
        await until(lambda: ws.raw.recv_messages.paused)
        await ws.aclose()


@pytest.mark.parametrize(("use", "least"), [(resynced, 6), (full, 8)])
async def test_cancelled_in_hooks_and_in_closing_it_leaves_nothing_behind(uri: str, use: Use, least: int) -> None:
    async def on_open(ws: Socket) -> None:
        await ws.send("hello")
        assert await ws.recv() == "hello"

    async def resync(ws: Socket) -> None:
        await ws.send("all clear")
        while await ws.recv() != "all clear":
            pass

    rpc = JSONRPC()
    worker = WebSocketWorker(uri, on_open=on_open, resync=resync, resync_when="always", close_timeout=0.05)
    async with open_websockets(worker, correlate=rpc, max_size=2) as sockets:
        with trio.fail_after(2 * PATIENCE):
            assert await sweep(lambda: use(sockets, rpc), lambda: check(sockets, rpc)) >= least
    assert tasks() == set()


class Whole:
    """A server that reads slowly, and notes what whole messages it gets."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    async def read(self, peer: Peer) -> None:
        while (frame := await peer.receive()) is not None:
            if frame.opcode is Opcode.CLOSE:
                await peer.frame(Opcode.CLOSE, bytes(frame.data))
                return
            self.messages.append(bytes(frame.data))
            await trio.lowlevel.checkpoint()


async def test_a_long_send_cancelled_at_every_checkpoint_spoils_no_other_message() -> None:
    server_side = Whole()
    sent: list[bytes] = []

    async def second(ws: LeasedSocket) -> None:
        with trio.CancelScope(shield=True):
            try:
                await ws.send(b"b" * 10)
                sent.append(b"b" * 10)
            except (SocketClosed, LeaseExpired):
                pass

    async def scenario() -> None:
        async with sockets.connection() as ws, trio.open_nursery() as nursery:
            shrink(ws)
            nursery.start_soon(second, ws)
            await ws.send(b"a" * LONG)

    async def after() -> None:
        async with sockets.connection() as ws:
            await ws.send(b"check")
        await until(lambda: server_side.messages and server_side.messages[-1] == b"check")

    async with serving(server_side.read) as server:
        worker = WebSocketWorker(server.uri, compression=None, close_timeout=0.05)
        async with open_websockets(worker, max_size=1) as sockets:
            with trio.fail_after(3 * PATIENCE):
                assert await sweep(scenario, after) >= 8
    assert set(server_side.messages) <= {b"a" * LONG, b"b" * 10, b"check"}
    assert server_side.messages.count(b"b" * 10) >= len(sent)


async def test_four_of_five_requests_are_cancelled_and_the_others_get_their_own_replies(uri: str) -> None:
    rpc = JSONRPC()
    rng = random.Random(11)
    right, cancelled = 0, 0

    async def ask(sockets: WebSockets, n: int) -> None:
        nonlocal right, cancelled
        impatient = n % 5 != 0
        with trio.move_on_after(rng.uniform(0, 0.3) if impatient else PATIENCE) as scope:
            call = rpc.call("later" if impatient else "echo", 0.3 if impatient else n)
            reply = rpc.result(await sockets.request(call))
            assert reply == (0.3 if impatient else n)
            right += 1
        cancelled += scope.cancelled_caught

    async with open_websockets(uri, correlate=rpc, max_in_flight=500) as sockets:
        async with trio.open_nursery() as nursery:
            for n in range(REQUESTS):
                nursery.start_soon(ask, sockets, n)
        assert right >= REQUESTS // 5
        assert cancelled >= REQUESTS * 0.7
        assert right + cancelled == REQUESTS
        await check(sockets, rpc)
        stats = sockets.shared_pool.stats
        assert (stats.opened, stats.leases, stats.waiting) == (1, 0, 0)
        async with sockets.shared_pool.checkout() as leased:
            assert leased.resource.exchange.in_flight == 0
            assert not leased.resource.exchange._expiry._waiting
    assert tasks() == set()


async def test_leases_that_are_cancelled_give_nobody_elses_messages_away(uri: str) -> None:
    rng = random.Random(13)
    right = 0

    async def use(sockets: WebSockets, n: int) -> None:
        nonlocal right
        with trio.move_on_after(rng.uniform(0, 0.05) if n % 3 else PATIENCE):
            for k in range(3):
                async with sockets.connection() as ws:
                    await ws.send(f"{n} {k}")
                    assert await ws.recv() == f"{n} {k}"
            right += 1

    async with open_websockets(WebSocketWorker(uri), max_size=5, checkout_timeout=PATIENCE) as sockets:
        async with trio.open_nursery() as nursery:
            for n in range(150):
                nursery.start_soon(use, sockets, n)
        assert right >= 50
        await until(lambda: not sockets.stats.closing)
        check_balance(sockets.pool)
        assert sockets.stats.size <= 5
    assert tasks() == set()


async def test_a_request_cancelled_before_it_is_sent_is_never_sent() -> None:
    seen: list[str] = []
    reading = trio.Event()

    async def serve(peer: Peer) -> None:
        await reading.wait()
        while (frame := await peer.receive()) is not None and frame.opcode is Opcode.TEXT:
            seen.append(json.loads(bytes(frame.data))["method"])

    rpc = JSONRPC()
    async with serving(serve) as server:
        worker = WebSocketWorker(server.uri, close_timeout=0.1, compression=None)
        async with open_websockets(worker, correlate=rpc) as sockets, trio.open_nursery() as nursery:
            nursery.start_soon(sockets.send, rpc.notification("first", "x" * 20_000_000))
            await until(lambda: sockets.shared_pool.stats.leases)
            async with trio.open_nursery() as impatient:
                for n in range(3):
                    impatient.start_soon(sockets.request, rpc.call(f"cancelled {n}"))
                await until(lambda: sockets.shared_pool.stats.leases == 4)
                await trio.testing.wait_all_tasks_blocked()
                impatient.cancel_scope.cancel()
            assert sockets.shared_pool.stats.leases == 1
            reading.set()
            await sockets.send(rpc.notification("last"))
            await until(lambda: "last" in seen)
    assert seen == ["first", "last"]
