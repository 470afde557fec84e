"""A web app on Hypercorn and trio that lends its requests a pool of subprocesses, and shuts down cleanly.

    pip install 'hypercorn[trio]'
    python examples/web_app.py --port 8000
    curl 'http://127.0.0.1:8000/?text=hello'
    curl 'http://127.0.0.1:8000/health'

On SIGTERM or Ctrl-C it takes no more connections, finishes the requests in flight, and closes the pool.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from functools import partial
from math import ceil
from signal import SIGINT, SIGTERM
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from nimblepool import Backoff, CircuitBreaker, PoolError, PoolUnavailable, PoolWorker, Reason, open_pool

if TYPE_CHECKING:
    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope

    from nimblepool import Pool

PROGRAM = """
import hashlib, json, sys, time
print("ready", flush=True)
for line in sys.stdin:
    text, seconds = json.loads(line)
    time.sleep(seconds)
    print(hashlib.sha256(text.encode()).hexdigest(), flush=True)
"""
LONGEST = 10
"""Seconds that a client may ask for."""


# -- the resource -------------------------------------------------------------------------------------------------


class Hasher:
    """A process that computes where it does not hold up the event loop."""

    def __init__(self, process: trio.Process) -> None:
        if process.stdin is None or process.stdout is None:
            raise ValueError("the process was started without pipes")
        self.process = process
        self.requests = process.stdin
        self.answers = process.stdout

    async def hash(self, text: str, seconds: int) -> dict[str, object]:
        """Return the SHA-256 of ``text``, after ``seconds``.

        Raises:
            trio.BrokenResourceError: the process has ended.
        """
        await self.requests.send_all(json.dumps([text, seconds]).encode() + b"\n")
        return {"sha256": await self.read_line(), "process": self.process.pid}

    async def read_line(self) -> str:
        """Return the next line."""
        line = b""
        while not line.endswith(b"\n"):
            received = await self.answers.receive_some()
            if not received:
                raise trio.BrokenResourceError("the process has ended")
            line += received
        return line.decode().strip()

    async def kill(self) -> None:
        """End the process, and wait until it has ended."""
        self.process.kill()
        with trio.CancelScope(shield=True):
            await self.process.wait()
            await self.requests.aclose()
            await self.answers.aclose()


class HasherWorker(PoolWorker[Hasher]):
    """Starts hashers. A lease that ends in an error may have left an answer unread: the default is to remove it."""

    def __init__(self, interpreter: str) -> None:
        self.command = [interpreter, "-c", PROGRAM]

    async def init(self) -> Hasher:
        # In a process group of its own, or Ctrl-C would reach it, too, in the midst of the last requests.
        start = partial(trio.lowlevel.open_process, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)
        hasher = Hasher(await start(self.command))
        try:
            await hasher.read_line()
        except BaseException:
            await hasher.kill()
            raise
        return hasher

    async def terminate(self, resource: Hasher, reason: Reason) -> None:
        await resource.kill()

    async def watch(self, resource: Hasher) -> None:
        await resource.process.wait()


# -- the app ------------------------------------------------------------------------------------------------------


class App:
    """An ASGI application; its pool is open between startup and shutdown."""

    def __init__(self, worker: HasherWorker) -> None:
        self.worker = worker
        self.pool: Pool[Hasher] | None = None

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve the lifespan or one request."""
        if scope["type"] == "lifespan":
            await self.live(receive, send)
        elif scope["type"] == "http":
            status, answer = await self.answer(scope["path"], scope["query_string"].decode())
            await respond(send, status, answer)

    async def live(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Keep the pool open until the server shuts down, which it does when the last request has ended."""
        await receive()
        async with open_pool(
            self.worker,
            name="hashers",
            min_size=1,
            max_size=4,
            max_waiting=100,
            backoff=Backoff(base=0.5, cap=5.0),
            breaker=CircuitBreaker(threshold=2),
        ) as pool:
            try:
                await pool.wait_ready()
            except PoolUnavailable as error:
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            self.pool = pool
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def answer(self, path: str, query: str) -> tuple[int, dict[str, object]]:
        """Return the status and the body for one request."""
        if path == "/health":
            return self.health()
        if path == "/":
            return await self.hash(parse_qs(query))
        return 404, {"error": f"there is no {path}"}

    async def hash(self, query: dict[str, list[str]]) -> tuple[int, dict[str, object]]:
        """Lend the request a hasher."""
        text = query.get("text", [""])[-1]
        seconds = query.get("seconds", ["0"])[-1]
        if not seconds.isdecimal() or int(seconds) > LONGEST:
            return 400, {"error": f"seconds must be a whole number, and not more than {LONGEST}"}
        if self.pool is None:
            return 503, {"error": "the pool is not open"}
        try:
            return 200, await self.pool.run(Hasher.hash, text, int(seconds))
        except PoolUnavailable as error:
            return 503, {"error": str(error), "retry_after": ceil(error.retry_after)}
        except (PoolError, trio.BrokenResourceError) as error:
            return 503, {"error": str(error)}

    def health(self) -> tuple[int, dict[str, object]]:
        """Tell whether requests can be served, and the pool's figures."""
        if self.pool is None:
            return 503, {"healthy": False}
        stats = self.pool.stats
        healthy = stats.breaker != "open"
        return 200 if healthy else 503, {"healthy": healthy, **asdict(stats)}


async def respond(send: ASGISendCallable, status: int, answer: dict[str, object]) -> None:
    """Send ``answer`` as JSON."""
    headers = [(b"content-type", b"application/json")]
    if "retry_after" in answer:
        headers.append((b"retry-after", str(answer["retry_after"]).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode() + b"\n", "more_body": False})


# -- the server ---------------------------------------------------------------------------------------------------


async def main(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or Ctrl-C, and until the last request has ended."""
    config = Config()
    config.bind = [f"127.0.0.1:{options.port}"]
    config.graceful_timeout = 2 * LONGEST
    app = App(HasherWorker(options.interpreter))
    with trio.open_signal_receiver(SIGINT, SIGTERM) as signals:

        async def stop() -> None:
            print(f"finishing the requests in flight after signal {await anext(signals)}", flush=True)

        async with trio.open_nursery() as nursery:
            binds = await nursery.start(partial(serve, app, config, shutdown_trigger=stop))
            print(f"listening on {binds[0]}", flush=True)
    print("closed", flush=True)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one, and says which (8000)")
    parser.add_argument("--interpreter", default=sys.executable, help="what runs the hashers (this Python)")
    return parser.parse_args()


if __name__ == "__main__":
    trio.run(main, parse())
