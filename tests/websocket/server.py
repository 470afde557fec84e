"""A real WebSocket server, the driver's own on asyncio, as a process of its own.

It echoes. What is said to it in JSON it does first: see `obey`. Run it with the port and the path of a unix socket to
listen on.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from websockets.asyncio.server import ServerConnection, serve, unix_serve
from websockets.exceptions import ConnectionClosed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from websockets.typing import Subprotocol

WELCOME = "welcome"


class Held:
    """Requests that are answered only when another message says so."""

    def __init__(self) -> None:
        self.replies: list[tuple[ServerConnection, str]] = []
        self.everybody: set[ServerConnection] = set()


async def obey(ws: ServerConnection, order: dict[str, Any], held: Held) -> None:
    reply = json.dumps({"jsonrpc": "2.0", "id": order.get("id"), "result": order.get("params")})
    match order.get("method"):
        case "echo":
            await ws.send(reply)
        case "later":
            await asyncio.sleep(order["params"])
            await ws.send(reply)
        case "hold":
            held.replies.append((ws, reply))
        case "release":
            for owner, old in reversed(held.replies):
                with suppress(ConnectionClosed):
                    await owner.send(old)
            held.replies.clear()
            await ws.send(reply)
        case "fail":
            error = {"code": -32000, "message": "no", "data": order.get("params")}
            await ws.send(json.dumps({"jsonrpc": "2.0", "id": order["id"], "error": error}))
        case "tell":
            for n in range(order["params"]):
                await ws.send(json.dumps({"jsonrpc": "2.0", "method": "told", "params": n}))
            await ws.send(reply)
        case "ask back":
            await ws.send(json.dumps({"jsonrpc": "2.0", "id": order["id"], "method": "whoami"}))
            await ws.send(reply)
        case "close":
            await ws.close(*order["params"])
        case "abort":
            ws.transport.abort()
        case _:
            pass


def read(message: str | bytes) -> list[dict[str, Any]]:
    try:
        content = json.loads(message)
    except ValueError:
        return []
    return content if isinstance(content, list) else [content] if isinstance(content, dict) else []


async def handle(ws: ServerConnection, held: Held) -> None:
    held.everybody.add(ws)
    tasks: set[asyncio.Task[None]] = set()
    try:
        if ws.request is not None and ws.request.path == "/greeting":
            await ws.send(WELCOME)
        async for message in ws:
            orders = read(message)
            if not orders:
                await ws.send(message)
            for order in orders:
                task = asyncio.create_task(obey(ws, order, held))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
    except ConnectionClosed:
        pass
    finally:
        held.everybody.discard(ws)
        for task in list(tasks):
            task.cancel()


def choose(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return offered[0] if offered else None


async def main(port: int, path: str) -> None:
    held = Held()

    async def handler(ws: ServerConnection) -> None:
        await handle(ws, held)

    options: dict[str, Any] = {"ping_interval": None, "max_size": 2**24, "select_subprotocol": choose}
    async with serve(handler, "127.0.0.1", port, **options) as server, unix_serve(handler, path, **options):
        sys.stdout.write(f"{next(iter(server.sockets)).getsockname()[1]}\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    # Ends when whoever started it does.
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
