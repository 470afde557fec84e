import ssl
import subprocess
import sys
from collections.abc import Callable
from math import inf
from typing import Any, cast

import pytest
import trio
import trustme

from nimblepool import PoolUnavailable
from nimblepool_websocket import ConnectOptions, SocketClosed, WebSocketWorker, open_keyed_websockets, open_websockets
from nimblepool_websocket._options import Dialler
from tests.websocket.echo import Echo
from tests.websocket.peer import Peer, serving

SECRET = "hunter2"


@pytest.mark.parametrize(
    "uri",
    [
        "http://host",
        "host",
        f"ws://me:{SECRET}@",
        "ws://host:70000",
        f"ws://me:{SECRET}/x@host",
        f"nonsense://me:{SECRET}@host",
    ],
)
def test_a_uri_that_is_none_is_refused_and_not_quoted(uri: str) -> None:
    with pytest.raises(ValueError, match="uri must be like ws://") as caught:
        WebSocketWorker(uri)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_secrets_are_in_no_repr() -> None:
    worker = WebSocketWorker(
        f"ws://me:{SECRET}@host:81/path?token={SECRET}", additional_headers={"Authorization": SECRET}
    )
    assert repr(worker) == "WebSocketWorker(ws://host:81/path)"


def test_a_proxy_that_is_none_is_refused_and_not_quoted() -> None:
    with pytest.raises(ValueError, match="proxy must be like http://") as caught:
        WebSocketWorker("ws://host", proxy=f"me:{SECRET}")
    assert SECRET not in str(caught.value)


async def test_a_bad_proxy_in_the_environment_is_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", f"https-nonsense://me:{SECRET}@host")
    async with open_websockets("wss://example.invalid") as sockets:
        with pytest.raises(PoolUnavailable) as caught:
            async with sockets.connection():
                pass
    assert SECRET not in repr(caught.value) + repr(caught.value.__cause__) + str(caught.value.__cause__)
    assert "proxy" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"ping_intervall": 3}, TypeError, "did you mean 'ping_interval'"),
        ({"nonsense": 3}, TypeError, "there are ssl, "),
        ({"stream": None}, TypeError, "a pool makes many"),
        ({"process_exception": None}, TypeError, "process_exception must be a function"),
        ({"resync_when": "always"}, ValueError, "needs a resync"),
        ({"resync_when": "never"}, ValueError, "must be 'unclean' or 'always'"),
        ({"reconnect_delays": None}, TypeError, "backoff"),
        ({"compression": "zip"}, ValueError, "compression"),
        ({"ssl": ssl.create_default_context()}, ValueError, "ws://"),
        ({"server_hostname": "x"}, ValueError, "use wss://"),
        ({"ssl": 5}, TypeError, "ssl must be an ssl.SSLContext"),
        ({"origin": 5}, TypeError, "origin must be a str"),
        ({"extensions": 5}, TypeError, "extensions must be a list"),
        ({"extensions": [5]}, TypeError, "each of extensions"),
        ({"subprotocols": [5]}, TypeError, "each of subprotocols"),
        ({"additional_headers": 5}, TypeError, "additional_headers must be a mapping"),
        ({"additional_headers": "x"}, TypeError, "additional_headers must be a mapping"),
        ({"additional_headers": {"X": 5}}, TypeError, "additional_headers must be a mapping"),
        ({"additional_headers": [("X", "1", "2")]}, TypeError, "additional_headers must be a mapping"),
        ({"user_agent_header": 5}, TypeError, "user_agent_header must be a str"),
        ({"proxy": 5}, TypeError, "proxy must be a str"),
        ({"proxy": False}, TypeError, "proxy must be a str"),
        ({"proxy_ssl": 4}, TypeError, "proxy_ssl must be an ssl.SSLContext"),
        ({"proxy_server_hostname": "x", "proxy": None}, ValueError, "https://"),
        ({"proxy_server_hostname": "x", "proxy": "http://host:1"}, ValueError, "https://"),
        ({"open_timeout": "x"}, TypeError, "open_timeout must be a number"),
        ({"open_timeout": 0}, ValueError, "open_timeout must be more than 0"),
        ({"ping_interval": "x"}, TypeError, "ping_interval must be a number"),
        ({"ping_interval": -1}, ValueError, "ping_interval must be more than 0"),
        ({"ping_timeout": True}, TypeError, "ping_timeout must be a number"),
        ({"close_timeout": -3}, ValueError, "close_timeout must be 0 or more"),
        ({"close_timeout": "x"}, TypeError, "close_timeout must be a number"),
        ({"max_size": "x"}, TypeError, "max_size must be a whole number"),
        ({"max_size": 0}, ValueError, "max_size must be 1 or more"),
        ({"max_size": (1, 2, 3)}, ValueError, "a tuple of two"),
        ({"max_queue": -1}, ValueError, "max_queue must be 0 or more"),
        ({"max_queue": (2, 8)}, ValueError, "low at most high"),
        ({"logger": 4}, TypeError, "logger must be a logger"),
        ({"create_connection": 5}, TypeError, "a subclass of ClientConnection"),
        ({"create_connection": lambda: None}, TypeError, "a subclass of ClientConnection"),
        ({"host": 5}, TypeError, "host must be a str"),
        ({"port": "x"}, TypeError, "port must be a whole number"),
        ({"port": 70_000}, ValueError, "port must be at most 65535"),
        ({"path": 5}, TypeError, "path must be a path"),
        ({"path": "/x", "host": "y"}, ValueError, "host does not go with path"),
        ({"path": "/x", "proxy": "http://host:1"}, ValueError, "proxy does not go with path"),
        ({"happy_eyeballs_delay": "x"}, TypeError, "happy_eyeballs_delay must be a number"),
        ({"local_address": 3}, TypeError, "local_address must be a str"),
        ({"subprotocols": "chat"}, TypeError, "subprotocols"),
        ({"on_open": 3}, TypeError, "on_open must be an async function"),
        ({"resync": 3}, TypeError, "resync must be an async function"),
        ({"send_timeout": 0}, ValueError, "send_timeout must be more than 0"),
        ({"send_timeout": "1"}, TypeError, "send_timeout must be a number"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_a_bad_option_of_a_worker_says_what_is_allowed(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        WebSocketWorker("ws://host", **options)


def test_none_and_zero_are_allowed_where_they_mean_something() -> None:
    options: dict[str, Any] = dict.fromkeys(ConnectOptions.__annotations__)
    WebSocketWorker("ws://host", **options)
    WebSocketWorker("ws://host", close_timeout=0, happy_eyeballs_delay=0, max_queue=0)
    WebSocketWorker("ws://host", path="/x", proxy=True)
    WebSocketWorker("wss://host", proxy="https://proxy", proxy_server_hostname="x", server_hostname="y")


async def test_one_address_after_the_other_is_tried_if_that_is_asked_for() -> None:
    async def passed_on(options: ConnectOptions) -> dict[str, Any]:
        return (await Dialler("ws://host", options).dial()).connector.open_tcp_stream_kwargs

    assert await passed_on({"happy_eyeballs_delay": None}) == {"happy_eyeballs_delay": None}
    assert await passed_on({"host": None, "port": None}) == {}


@pytest.mark.parametrize("make", [dict, list, iter, lambda pairs: dict(pairs).items()])
async def test_headers_may_be_whatever_holds_pairs_and_are_there_for_every_connection(
    make: Callable[..., Any],
) -> None:
    dialler = Dialler("ws://host", {"additional_headers": make([("X-Trace", "7")])})
    for _ in range(2):
        assert dict(cast("Any", (await dialler.dial()).connector.additional_headers)) == {"x-trace": "7"}


def test_a_secret_header_is_not_quoted() -> None:
    with pytest.raises(TypeError) as caught:
        WebSocketWorker("ws://host", additional_headers=cast("Any", [("Authorization", SECRET, "")]))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("make", [lambda **o: open_websockets("ws://host", **o), open_keyed_websockets])
@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"shared_size": 0}, ValueError, "shared_size must be 1 or more"),
        ({"shared_min_size": -1}, ValueError, "shared_min_size must be 0 or more"),
        ({"shared_min_size": 2}, ValueError, "shared_min_size must be at most shared_size"),
        ({"max_in_flight": 1.5}, TypeError, "max_in_flight must be a whole number"),
        ({"request_timeout": -1}, ValueError, "request_timeout must be more than 0"),
        ({"correlate": 3}, TypeError, "correlate must be a function"),
        ({"max_sise": 3}, TypeError, "did you mean 'max_size'"),
        ({"max_size": 0}, ValueError, "max_size"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_bad_option_is_refused_by_the_call(
    make: Callable[..., object], options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        make(**options)


@pytest.mark.parametrize("source", [3, b"ws://host"])
def test_a_source_is_a_uri_or_a_worker(source: str) -> None:
    with pytest.raises(TypeError, match="a URI or a WebSocketWorker"):
        open_websockets(source)
    with pytest.raises(TypeError, match="a URI or a WebSocketWorker"):
        open_websockets("ws://host", shared=source)


def test_terminating_has_time_for_the_closing_handshake() -> None:
    assert WebSocketWorker("ws://host").pool_options({})["terminate_timeout"] == 5.0
    assert WebSocketWorker("ws://host", close_timeout=20).pool_options({})["terminate_timeout"] == 21.0
    given = WebSocketWorker("ws://host", close_timeout=20).pool_options({"terminate_timeout": 3.0})
    assert given["terminate_timeout"] == 3.0


def test_init_has_time_for_open_timeout_and_on_open() -> None:
    for open_timeout, expected in ((10, 30.0), (60, 80.0), (None, inf)):
        worker = WebSocketWorker("ws://host", open_timeout=open_timeout)
        assert worker.pool_options({})["init_timeout"] == expected
        assert worker.pool_options({"init_timeout": 3.0})["init_timeout"] == 3.0
    assert WebSocketWorker("ws://host").pool_options({})["init_timeout"] == 30.0


async def test_each_pool_has_the_timeouts_of_its_own_worker() -> None:
    shared = WebSocketWorker("ws://host", close_timeout=7, open_timeout=40)
    async with open_websockets("ws://host", shared=shared) as sockets:
        settings = sockets.pool._engine.settings
        assert (settings.terminate_timeout, settings.init_timeout) == (5.0, 30.0)
        settings = sockets.shared_pool._engine.settings
        assert (settings.terminate_timeout, settings.init_timeout) == (8.0, 60.0)
    async with open_websockets("ws://host", shared=shared, terminate_timeout=3.0) as sockets:
        assert sockets.shared_pool._engine.settings.terminate_timeout == 3.0


async def test_the_driver_gets_its_options(echo: Echo) -> None:
    worker = WebSocketWorker(
        echo.uri,
        subprotocols=["chat"],
        origin="https://here.example",
        additional_headers={"X-Trace": "7"},
        user_agent_header="me",
        compression=None,
        max_size=(1000, 500),
        max_queue=(8, 2),
    )
    async with open_websockets(worker) as sockets, sockets.connection() as ws:
        assert ws.subprotocol == "chat"
        assert ws.request is not None
        assert ws.response is not None
        headers = ws.request.headers
        assert (headers["Origin"], headers["X-Trace"], headers["User-Agent"]) == ("https://here.example", "7", "me")
        assert "Sec-WebSocket-Extensions" not in headers
        assert ws.response.status_code == 101
        assert (ws.raw.recv_messages.high, ws.raw.protocol.max_message_size) == (8, 1000)


async def test_a_silent_peer_is_looked_for_more_often_than_the_driver_would(uri: str) -> None:
    async with open_websockets(uri) as sockets, sockets.connection() as ws:
        assert (ws.raw.ping_interval, ws.raw.ping_timeout, ws.raw.close_timeout) == (10.0, 10.0, 2.0)


async def test_a_unix_socket_is_connected_to(echo: Echo) -> None:
    worker = WebSocketWorker("ws://localhost/greeting", path=echo.path)
    async with open_websockets(worker) as sockets, sockets.connection() as ws:
        assert await ws.recv() == "welcome"


async def test_another_host_and_port_can_be_connected_to(echo: Echo) -> None:
    worker = WebSocketWorker("ws://name.invalid/greeting", host="127.0.0.1", port=echo.port)
    async with open_websockets(worker) as sockets, sockets.connection() as ws:
        assert await ws.recv() == "welcome"


async def test_a_class_of_the_users_own_makes_the_connections(uri: str) -> None:
    from websockets.trio.client import ClientConnection  # noqa: PLC0415 - this test's only

    class Mine(ClientConnection):
        pass

    async with open_websockets(WebSocketWorker(uri, create_connection=Mine)) as sockets, sockets.connection() as ws:
        assert isinstance(ws.raw, Mine)


async def test_opening_that_takes_too_long_fails_within_open_timeout() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with listener, open_websockets(WebSocketWorker(f"ws://127.0.0.1:{port}", open_timeout=0.05)) as sockets:
        with pytest.raises(PoolUnavailable) as caught:
            async with sockets.connection():
                pass
        assert isinstance(caught.value.__cause__, TimeoutError)


@pytest.mark.parametrize("missing", ["websockets", "websockets.trio"])
def test_a_missing_or_old_driver_says_how_to_get_it(missing: str) -> None:
    script = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "try: import nimblepool_websocket\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "17.4 or newer: pip install 'nimblepool[websocket]'" in done.stdout


async def test_tls_is_spoken_with_whom_the_context_trusts() -> None:
    authority = trustme.CA()
    here, there = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(here)
    authority.issue_cert("localhost").configure_cert(there)

    async def echo_once(peer: Peer) -> None:
        frame = await peer.receive()
        assert frame is not None
        await peer.frame(frame.opcode, bytes(frame.data))
        await peer.until_closed()

    async with serving(echo_once, tls=there) as server:
        uri = f"wss://localhost:{server.port}"
        worker = WebSocketWorker(uri, ssl=here, host="127.0.0.1", close_timeout=0.2)
        async with open_websockets(worker) as sockets, sockets.connection() as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"
        async with open_websockets(WebSocketWorker(uri, host="127.0.0.1")) as sockets:
            with pytest.raises(PoolUnavailable) as caught:
                async with sockets.connection():
                    pass
            cause = caught.value.__cause__
            assert cause is not None
            assert "certificate verify failed" in repr(cause) + repr(cause.__cause__)


async def test_a_proxy_is_gone_through(echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    async def pump(source: trio.SocketStream, target: trio.SocketStream) -> None:
        async for data in source:
            await target.send_all(data)
        await target.send_eof()

    async def proxy(client: trio.SocketStream) -> None:
        asked.append((await client.receive_some()).split(b"\r\n")[0])
        await client.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        async with await trio.open_tcp_stream("127.0.0.1", echo.port) as server, trio.open_nursery() as nursery:
            nursery.start_soon(pump, client, server)
            await pump(server, client)

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, proxy, [listener])
        monkeypatch.setenv("https_proxy", address)
        for worker in (
            WebSocketWorker("ws://name.invalid/greeting", proxy=address),
            WebSocketWorker("ws://name.invalid/greeting"),
        ):
            async with open_websockets(worker) as sockets, sockets.connection() as ws:
                assert await ws.recv() == "welcome"
        nursery.cancel_scope.cancel()
    assert asked == [b"CONNECT name.invalid:80 HTTP/1.1"] * 2


async def test_a_message_larger_than_max_size_closes_the_socket_with_1009() -> None:
    async def huge(peer: Peer) -> None:
        await peer.receive()
        await peer.text("x" * 2000)
        await peer.until_closed()

    async with (
        serving(huge) as server,
        open_websockets(WebSocketWorker(server.uri, max_size=1000)) as sockets,
        sockets.connection() as ws,
    ):
        await ws.send("go")
        with pytest.raises(SocketClosed, match="1009"):
            await ws.recv()
