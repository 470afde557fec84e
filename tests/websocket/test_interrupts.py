import signal
from collections.abc import Callable, Iterator

import pytest
import trio
from websockets.typing import Data

from nimblepool_websocket import Correlate, WebSocketWorker, open_websockets
from tests.websocket.echo import Echo
from tests.websocket.peer import PATIENCE, say_nothing, serving


@pytest.fixture(autouse=True)
def interrupts_arrive() -> Iterator[None]:
    """Undo for a while that a shell lets what it starts in the background ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt(_: Data) -> None:
    signal.raise_signal(signal.SIGINT)


def leave(_: Data) -> None:
    raise SystemExit(3)


class Leaving:
    """A correlator that ends the program at the first reply."""

    def request_id(self, _: Data) -> int:
        return 1

    def reply_id(self, _: Data) -> int:
        raise SystemExit(3)


async def subscribe(uri: str, match: Callable[[Data], None]) -> None:
    async with open_websockets(uri) as sockets, sockets.subscribe(match) as messages:
        await sockets.send("plain")
        with trio.fail_after(PATIENCE):
            await anext(messages)


async def ask(uri: str, correlate: Correlate) -> None:
    async with open_websockets(uri, correlate=correlate) as sockets:
        await sockets.request("question", timeout=PATIENCE)


class Interrupted:
    """A correlator in which Ctrl-C is pressed at the first reply."""

    def request_id(self, _: Data) -> int:
        return 1

    def reply_id(self, _: Data) -> int:
        signal.raise_signal(signal.SIGINT)
        return 1


def test_ctrl_c_while_a_message_is_handed_on_ends_the_program_as_it_should(echo: Echo) -> None:
    with pytest.raises(KeyboardInterrupt):
        trio.run(subscribe, echo.uri, interrupt)


def test_ctrl_c_while_a_reply_is_looked_at_ends_the_program_as_it_should(echo: Echo) -> None:
    with pytest.raises(KeyboardInterrupt):
        trio.run(ask, echo.uri, Interrupted())


def test_what_a_match_raises_to_end_the_program_comes_out_of_the_subscription(echo: Echo) -> None:
    with pytest.raises(SystemExit):
        trio.run(subscribe, echo.uri, leave)


def test_what_correlate_raises_to_end_the_program_comes_out_of_the_requests(echo: Echo) -> None:
    with pytest.raises(SystemExit):
        trio.run(ask, echo.uri, Leaving())


def test_ctrl_c_while_the_pools_close_comes_out_alone() -> None:
    async def interrupt_soon() -> None:
        await trio.sleep(0.05)
        signal.raise_signal(signal.SIGINT)

    async def close_slowly() -> None:
        async with (
            serving(say_nothing) as server,
            open_websockets(WebSocketWorker(server.uri, close_timeout=0.3)) as sockets,
        ):
            await sockets.send("x")
            trio.lowlevel.spawn_system_task(interrupt_soon)

    with pytest.raises(KeyboardInterrupt):
        trio.run(close_slowly)
