import http
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trustme

from nimblepool import Backoff, CheckoutTimeout, Fatal, PoolUnavailable
from nimblepool_websocket import Socket, SocketClosedError, WebSocketWorker, open_websockets
from tests.websocket.echo import Echo
from tests.websocket.peer import PATIENCE, Peer, serving

SECRET = "hunter2"


class Refusing:
    """A server that answers every handshake with a status; it counts them."""

    def __init__(self, status: int) -> None:
        self.status = http.HTTPStatus(status)
        self.asked = 0
        self.uri = ""

    async def _answer(self, stream: trio.SocketStream) -> None:
        async with stream:
            self.asked += 1
            await stream.receive_some()
            head = f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\nContent-Length: 0\r\n\r\n"
            await stream.send_all(head.encode())

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.uri = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, self._answer, [listener])
            yield
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_refusal_that_will_not_pass_is_told_at_once_though_others_are_waited_out(status: int) -> None:
    server = Refusing(status)
    async with server.listening(), open_websockets(server.uri, on_open_failure="wait") as sockets:
        with trio.fail_after(1), pytest.raises(PoolUnavailable, match=str(status)) as caught:
            async with sockets.connection():
                pass
        assert type(caught.value.__cause__).__name__ == "InvalidStatus"
    assert server.asked == 1


@pytest.mark.parametrize("status", [500, 503])
async def test_a_refusal_that_may_pass_is_waited_out(status: int) -> None:
    server = Refusing(status)
    quick = Backoff(0.01, 0.01, "none")
    async with (
        server.listening(),
        open_websockets(server.uri, on_open_failure="wait", checkout_timeout=0.2, backoff=quick) as sockets,
    ):
        with pytest.raises(CheckoutTimeout):
            async with sockets.connection():
                pass
    assert server.asked > 1


async def test_a_connection_that_is_lost_in_the_handshake_may_pass() -> None:
    async def leave(stream: trio.SocketStream) -> None:
        await stream.aclose()

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, leave, [listener])
        for scheme in ("ws", "wss"):
            worker = WebSocketWorker(f"{scheme}://127.0.0.1:{port}")
            with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is not said
                await worker.init()
            assert not isinstance(caught.value, Fatal)
            # And the reason is told.
            assert caught.value.__cause__ is not None
        nursery.cancel_scope.cancel()


async def test_a_certificate_that_is_not_valid_will_not_pass() -> None:
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(server_side)
    async with serving(Peer.until_closed, tls=server_side) as server:
        worker = WebSocketWorker(f"wss://127.0.0.1:{server.port}")
        with pytest.raises(Fatal, match="CERTIFICATE_VERIFY_FAILED"):
            await worker.init()


@pytest.mark.parametrize("raises", [True, False])
async def test_the_user_can_say_what_will_not_pass(raises: bool) -> None:
    seen: list[Exception] = []

    def process_exception(error: Exception) -> Exception | None:
        seen.append(error)
        mine = PermissionError("mine")
        if raises:
            raise mine
        return mine

    server = Refusing(503)
    async with server.listening():
        worker = WebSocketWorker(server.uri, process_exception=process_exception)
        async with open_websockets(worker, on_open_failure="wait") as sockets:
            with trio.fail_after(1), pytest.raises(PoolUnavailable) as caught:
                async with sockets.connection():
                    pass
    assert isinstance(caught.value.__cause__, PermissionError)
    assert caught.value.__cause__.__cause__ is seen[0]


async def test_on_open_can_say_that_a_refusal_will_not_pass(uri: str) -> None:
    async def login(_: Socket) -> None:
        raise Fatal(PermissionError("locked"))

    worker = WebSocketWorker(uri, on_open=login)
    async with open_websockets(worker, on_open_failure="wait") as sockets:
        with trio.fail_after(1), pytest.raises(PoolUnavailable) as caught:
            async with sockets.connection():
                pass
    assert isinstance(caught.value.__cause__, PermissionError)


def asynchronous(values: Iterator[Any]) -> Callable[[], Any]:
    async def ask() -> object:
        await trio.lowlevel.checkpoint()
        return next(values)

    return ask


def plain(values: Iterator[Any]) -> Callable[[], Any]:
    return lambda: next(values)


@pytest.mark.parametrize("kind", [plain, asynchronous])
async def test_address_and_headers_are_asked_for_before_each_opening(
    kind: Callable[[Iterator[Any]], Callable[[], Any]], echo: Echo
) -> None:
    uris = iter([f"{echo.uri}/one?token={SECRET}", f"{echo.uri}/two?token={SECRET}"])
    headers = iter([{"Authorization": "first"}, [("Authorization", "second")]])
    worker = WebSocketWorker(kind(uris), additional_headers=kind(headers))
    assert repr(worker) == "WebSocketWorker(?)"
    async with open_websockets(worker) as sockets:
        for path, token in (("one", "first"), ("two", "second")):
            async with sockets.connection() as ws:
                assert ws.request is not None
                assert ws.request.path == f"/{path}?token={SECRET}"
                assert ws.request.headers["Authorization"] == token
                assert repr(worker) == f"WebSocketWorker({echo.uri}/{path})"
                assert SECRET not in repr(ws)
                ws.remove()


@pytest.mark.parametrize(
    ("uri", "headers", "options", "text"),
    [
        ("nonsense", None, {}, "uri must be like"),
        (7, None, {}, "uri must be a str"),
        ("ws://host", 7, {}, "additional_headers must be"),
        ("ws://host", None, {"server_hostname": "x"}, "use wss://"),
    ],
)
async def test_what_is_asked_for_is_checked_as_what_is_given(
    uri: str, headers: dict[str, str], options: dict[str, Any], text: str
) -> None:
    worker = WebSocketWorker(lambda: uri, additional_headers=lambda: headers, **options)
    async with open_websockets(worker) as sockets:
        with pytest.raises(PoolUnavailable) as caught:
            async with sockets.connection():
                pass
    assert text in str(caught.value.__cause__)


async def test_a_function_that_fails_or_hangs_is_a_failure_to_open_that_may_pass() -> None:
    async def hang() -> str:
        await trio.sleep(PATIENCE)
        return "ws://host"

    def fail() -> str:
        raise LookupError("no token")

    for function, cause in ((hang, trio.TooSlowError), (fail, LookupError)):
        async with open_websockets(WebSocketWorker(function), init_timeout=0.05) as sockets:
            with pytest.raises(PoolUnavailable) as caught:
                async with sockets.connection():
                    pass
            assert isinstance(caught.value.__cause__, cause)
    with pytest.raises(LookupError):
        await WebSocketWorker(fail).init()


async def test_a_death_is_logged_with_the_code(caplog: pytest.LogCaptureFixture) -> None:
    async def close(peer: Peer) -> None:
        await peer.close(1012, "restart")
        await peer.until_closed()

    caplog.set_level(logging.INFO, "nimblepool")
    async with serving(close) as server, open_websockets(server.uri, min_size=1) as sockets:
        with trio.fail_after(PATIENCE):
            while "1012" not in caplog.text:  # noqa: ASYNC110 - nobody could set an event
                await trio.sleep(0.01)
            assert sockets.stats.size <= 1
    assert "SocketClosedError('received 1012" in caplog.text


def test_the_repr_of_an_error_says_what_its_text_says() -> None:
    error = SocketClosedError(None, None, None)
    assert repr(error) == f"SocketClosedError({str(error)!r})"
