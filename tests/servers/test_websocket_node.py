"""Node's `ws` as a peer, straight and behind Debian's nginx, whose patience with a silent tunnel is one second."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

import pytest
import trio

from nimblepool import Backoff
from nimblepool.testing import check_balance, sweep
from nimblepool_websocket import JSONRPC, RequestLost, SocketClosed, WebSockets, WebSocketWorker, open_websockets
from tests.servers.process import PATIENCE, account, free_port, give_to, program, until, wait_until
from tests.websocket.figures import sockets, tasks

WS: Final = "ws@8.23.0"
READ_TIMEOUT: Final = 1
QUICK: Final = Backoff(0.05, 0.2)
SERVER: Final = """
const { WebSocketServer } = require('ws');
const server = new WebSocketServer({ host: '127.0.0.1', port: +process.argv[2], perMessageDeflate: true });
server.on('listening', () => console.log('listening'));
server.on('connection', (ws) => {
  ws.on('message', (data, binary) => {
    let order = {};
    try { order = JSON.parse(data); } catch { }
    const reply = JSON.stringify({ jsonrpc: '2.0', id: order.id, result: order.params });
    if (order.method === 'echo') ws.send(reply);
    else if (order.method === 'tell') {
      for (let n = 0; n < order.params; n++) ws.send(JSON.stringify({ method: 'told', params: n }));
      ws.send(reply);
    } else if (order.method === 'fragments') {
      ws.send('one ', { fin: false }); ws.send('two ', { fin: false }); ws.send('three');
    } else if (order.method === 'close') ws.close(...order.params);
    else if (order.method === 'terminate') ws.terminate();
    else if (order.method !== 'nothing') ws.send(data, { binary });
  });
});
process.stdin.resume();
process.stdin.on('end', () => process.exit());
"""
NGINX: Final = """
daemon off;
worker_processes 1;
pid {directory}/pid;
error_log {directory}/error.log warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_read_timeout {read_timeout}s;
        }}
    }}
}}
"""


def modules() -> Path:
    """Return where `ws` is: in the user's cache, where npm puts it once."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nimblepool" / WS
    if not (cache / "node_modules" / "ws").exists():
        cache.mkdir(parents=True, exist_ok=True)
        command = [program("npm"), "install", "--no-audit", "--no-fund", "--prefix", str(cache), WS]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    return cache / "node_modules"


class Node:
    """A process of Node's with an echo server on a port of its own; it can be killed and started again."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[str] | None = None

    @property
    def uri(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        process = subprocess.Popen(
            [program("node"), "-e", SERVER, "server", str(self.port)],
            env={**os.environ, "NODE_PATH": str(modules())},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._process = process
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


class Tunnel:
    """nginx in front of a server."""

    def __init__(self, upstream: int) -> None:
        self.port = free_port()
        self._upstream = upstream
        self._directory = Path(tempfile.mkdtemp(prefix="nimblepool-tunnel-"))

    @property
    def uri(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        values = {"directory": self._directory, "port": self.port, "upstream": self._upstream}
        (self._directory / "nginx.conf").write_text(NGINX.format(read_timeout=READ_TIMEOUT, **values))
        give_to(account(), self._directory)
        command: list[str | Path] = [
            program("nginx"),
            "-e",
            self._directory / "error.log",
            "-c",
            self._directory / "nginx.conf",
        ]
        self._process = subprocess.Popen[bytes](command, stderr=subprocess.DEVNULL, **account())
        wait_until((self._directory / "pid").exists, lambda: "nginx does not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)
        shutil.rmtree(self._directory, ignore_errors=True)


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in os.environ:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    before = sockets()
    yield
    assert sockets() <= before


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Node() as server:
        yield server


@pytest.fixture(scope="module")
def tunnel(node: Node) -> Iterator[Tunnel]:
    with Tunnel(node.port) as nginx:
        yield nginx


@pytest.fixture
def own_node() -> Iterator[Node]:
    with Node() as server:
        yield server


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


async def test_keep_alive_outlives_the_patience_of_a_proxy(tunnel: Tunnel) -> None:
    patient = WebSocketWorker(tunnel.uri, ping_interval=READ_TIMEOUT / 4)
    silent = WebSocketWorker(tunnel.uri, ping_interval=None)
    async with open_websockets(patient) as kept, open_websockets(silent) as dropped:
        for pools in (kept, dropped):
            async with pools.connection():
                pass
        await until(lambda: dropped.stats.lost == 1)
        await trio.sleep(READ_TIMEOUT / 2)
        assert (kept.stats.lost, kept.stats.idle) == (0, 1)
        for pools in (kept, dropped):
            async with pools.connection() as ws:
                await ws.send("mine")
                assert await ws.recv() == "mine"


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
