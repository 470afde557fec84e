"""Fifty JSON-RPC requests over one shared socket; the server is killed half-way and started again."""

import argparse
import json
import subprocess
import sys
from functools import partial

import trio
from websockets.trio.server import ServerConnection, serve

from nimblepool import Backoff
from nimblepool_websocket import JSONRPC, RequestLost, WebSockets, WebSocketWorker, open_websockets

QUESTIONS = 50
HALF = QUESTIONS // 2


async def answer(ws: ServerConnection) -> None:
    """Square numbers; slowly enough to be killed while it does."""
    async for message in ws:
        request = json.loads(message)
        await trio.sleep(0.01)
        await ws.send(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": request["params"] ** 2}))


async def run_server(port: int) -> None:
    """Serve on ``port`` until killed; say which port it is."""
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    print(listeners[0].socket.getsockname()[1], flush=True)
    await serve(answer, listeners=listeners)


def start_server(port: int = 0) -> tuple[subprocess.Popen[str], int]:
    """Start the server as a process of its own; return it and its port."""
    command = [sys.executable, __file__, "--serve", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    if process.stdout is None:
        raise RuntimeError("the server was started without a pipe")
    return process, int(process.stdout.readline())


async def square(sockets: WebSockets, rpc: JSONRPC, number: int) -> int:
    """Ask until there is an answer: to square twice does no harm, so a request that may have arrived is repeated."""
    while True:
        try:
            result: int = rpc.result(await sockets.request(rpc.call("square", number)))
        except RequestLost as error:
            print(f"no answer for {number}: {error}")
        else:
            return result


async def ask_all(sockets: WebSockets, rpc: JSONRPC, half_way: trio.Event) -> dict[int, int]:
    """Ask all questions at once."""
    answers: dict[int, int] = {}

    async def ask(number: int) -> None:
        answers[number] = await square(sockets, rpc, number)
        if len(answers) == HALF:
            half_way.set()

    async with trio.open_nursery() as nursery:
        for number in range(QUESTIONS):
            nursery.start_soon(ask, number)
    return answers


async def main() -> None:
    """Ask, kill the server, start it again, and show that every answer came."""
    server, port = await trio.to_thread.run_sync(start_server)
    rpc, half_way = JSONRPC(), trio.Event()

    async def restart() -> None:
        nonlocal server
        await half_way.wait()
        print("killing the server")
        server.kill()
        server.communicate()
        server, _ = await trio.to_thread.run_sync(start_server, port)
        print("the server is back")

    worker = WebSocketWorker(f"ws://127.0.0.1:{port}", proxy=None)
    patience = Backoff(base=0.05, cap=0.5)
    try:
        async with open_websockets(
            worker, correlate=rpc, on_open_failure="wait", backoff=patience, breaker=None
        ) as sockets:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(restart)
                answers = await ask_all(sockets, rpc, half_way)
            stats = sockets.shared_pool.stats
        right = sum(answers[number] == number**2 for number in range(QUESTIONS))
        print(f"{right} of {QUESTIONS} answers are right; {stats.opened} sockets were opened, {stats.lost} lost")
    finally:
        server.kill()
        server.communicate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", type=int, metavar="PORT", help="be the server")
    port_to_serve = parser.parse_args().serve
    trio.run(main if port_to_serve is None else partial(run_server, port_to_serve))
