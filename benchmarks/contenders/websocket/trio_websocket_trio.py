"""trio-websocket's connections, over wsproto."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from benchmarks.contender import Caller, load_peer

from . import asking, taking_turns

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.contender import Ask

    from . import Exchange

trio_websocket = load_peer("trio_websocket")


@asynccontextmanager
async def open_sockets(url: str, sockets: int, tasks: int) -> AsyncGenerator[Ask]:
    """Connect."""
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(trio_websocket.open_websocket_url(url)) for _ in range(sockets)]
        yield asking(taking_turns([_exchange_over(connection) for connection in opened], tasks))


def _exchange_over(connection: Any) -> Exchange:  # noqa: ANN401 - the peer's own
    async def exchange(message: str) -> object:
        await connection.send_message(message)
        return await connection.get_message()

    return exchange


VERSION = f"trio-websocket {trio_websocket.__version__}, wsproto {version('wsproto')}"
CONTENDERS = {"trio-websocket": Caller("trio", open_sockets)}
