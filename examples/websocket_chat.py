"""A chat: what comes in on one socket is fanned out to the rooms' readers, and none of them can hold up another."""

import json
from typing import Any

import trio
from websockets.trio.server import ServerConnection, serve

from nimblepool_websocket import Overflow, Subscription, WebSockets, WebSocketWorker, open_websockets

ROOMS = ("tea", "coffee")
POSTS = 20
Data = str | bytes


class Room:
    """The server's side: whoever is connected hears everything."""

    def __init__(self) -> None:
        self.members: set[ServerConnection] = set()

    async def join(self, ws: ServerConnection) -> None:
        """Pass on what the member says."""
        self.members.add(ws)
        try:
            async for message in ws:
                for member in list(self.members):
                    await member.send(message)
        finally:
            self.members.discard(ws)


def post_in(message: Data) -> dict[str, Any]:
    """Return what a message says."""
    post: dict[str, Any] = json.loads(message)
    return post


async def read(name: str, messages: Subscription, pause: float) -> None:
    """Read a room's posts until the last one; some are slow readers."""
    seen = 0
    async for message in messages:
        seen += 1
        if post_in(message)["number"] == POSTS - 1:
            break
        await trio.sleep(pause)
    print(f"{name}: read {seen} posts, missed {messages.dropped}")


async def follow(
    sockets: WebSockets, room: str, overflow: Overflow, pause: float, *, task_status: trio.TaskStatus[None]
) -> None:
    """Subscribe to one room."""
    async with sockets.subscribe(lambda m: post_in(m)["room"] == room, buffer=5, overflow=overflow) as messages:
        task_status.started()
        await read(f"{room}, {overflow}, {'slow' if pause else 'quick'}", messages, pause)


async def chat(uri: str) -> None:
    """Let quick and slow readers follow two rooms, and post in both."""
    async with open_websockets(WebSocketWorker(uri, proxy=None)) as sockets:
        async with trio.open_nursery() as nursery:
            for room in ROOMS:
                await nursery.start(follow, sockets, room, "wait", 0.0)
                await nursery.start(follow, sockets, room, "drop_oldest", 0.02)
            for number in range(POSTS):
                for room in ROOMS:
                    await sockets.send(json.dumps({"room": room, "number": number}))
        opened = sockets.shared_pool.stats.opened
    print(f"{opened} socket carried {POSTS * len(ROOMS)} posts to {2 * len(ROOMS)} readers")


async def main() -> None:
    """Run the server and its clients."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    room = Room()
    async with trio.open_nursery() as nursery:

        async def run_server() -> None:
            await serve(room.join, listeners=listeners)

        nursery.start_soon(run_server)
        await chat(f"ws://127.0.0.1:{port}")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
