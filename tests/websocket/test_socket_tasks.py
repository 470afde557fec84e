import signal
from collections.abc import Awaitable, Callable, Iterator

import pytest
import trio
from websockets.protocol import Event
from websockets.trio.client import ClientConnection
from websockets.typing import DataLike

from nimblepool_websocket import SocketClosed, WebSocketWorker, open_websockets
from tests.websocket.echo import Echo
from tests.websocket.peer import PATIENCE


@pytest.fixture(autouse=True)
def interrupts_arrive() -> Iterator[None]:
    """Undo for a while that a shell lets what it starts in the background ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class InterruptedReader(ClientConnection):
    """Ctrl-C lands in the driver's reader, once the handshake is over."""

    def process_event(self, event: Event) -> None:
        if self.response is not None:
            signal.raise_signal(signal.SIGINT)
        super().process_event(event)


class InterruptedKeepalive(ClientConnection):
    async def ping(self, data: DataLike | None = None, *, ack_on_close: bool = False) -> trio.Event:
        signal.raise_signal(signal.SIGINT)
        return await super().ping(data, ack_on_close=ack_on_close)


class InterruptedOpening(ClientConnection):
    """It lands in a task that nobody could protect, while the socket is opened."""

    async def handshake(self, *args: object, **kwargs: object) -> None:
        self.nursery.start_soon(raise_soon, KeyboardInterrupt())
        await trio.sleep_forever()


def failing(error: BaseException) -> type[ClientConnection]:
    """Return a connection of which a task fails with ``error`` while it is used."""

    class Failing(ClientConnection):
        def start_keepalive(self) -> None:
            self.nursery.start_soon(raise_soon, error)

    return Failing


async def raise_soon(error: BaseException) -> None:
    await trio.sleep(0.05)
    raise error


async def echo_for_ever(uri: str, kind: type[ClientConnection]) -> None:
    worker = WebSocketWorker(uri, create_connection=kind, ping_interval=0.05)
    with trio.fail_after(PATIENCE):
        async with open_websockets(worker) as sockets, sockets.connection() as ws:
            while True:
                await ws.send("x")
                await ws.recv()


async def wait_for_ever(uri: str, kind: type[ClientConnection]) -> None:
    worker = WebSocketWorker(uri, create_connection=kind, ping_interval=0.05)
    with trio.fail_after(PATIENCE):
        async with open_websockets(worker) as sockets, sockets.connection() as ws:
            await ws.recv()


@pytest.mark.parametrize(
    ("use", "kind", "harms"),
    [
        (echo_for_ever, InterruptedReader, False),
        (wait_for_ever, InterruptedKeepalive, False),
        (wait_for_ever, InterruptedOpening, False),
        (wait_for_ever, failing(KeyboardInterrupt()), True),
        (wait_for_ever, failing(BaseExceptionGroup("several", [KeyboardInterrupt()])), True),
    ],
)
def test_ctrl_c_in_the_task_of_a_socket_ends_the_program_as_it_should(
    echo: Echo,
    caplog: pytest.LogCaptureFixture,
    use: Callable[[str, type[ClientConnection]], Awaitable[None]],
    kind: type[ClientConnection],
    harms: bool,
) -> None:
    with pytest.raises((KeyboardInterrupt, BaseExceptionGroup)) as caught:
        trio.run(use, echo.uri, kind)
    error: BaseException = caught.value
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, KeyboardInterrupt)
    assert ("its task failed" in caplog.text) is harms


def test_what_else_ends_the_task_of_a_socket_costs_the_socket(echo: Echo, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        worker = WebSocketWorker(echo.uri, create_connection=failing(SystemExit(3)))
        async with open_websockets(worker) as sockets:
            with pytest.raises(SocketClosed):
                async with sockets.connection() as ws:
                    await ws.recv()
            async with sockets.connection() as ws:
                await ws.send("x")
                assert await ws.recv() == "x"
            assert sockets.stats.opened == 2

    trio.run(main)
    assert "its task failed" in caplog.text
