"""A real gRPC server, grpcio's own on asyncio, as a process of its own.

Run it with the directory of the generated modules and its configuration in JSON. It prints its port, obeys the lines
that come in, each answered with one line of JSON, and ends when there are no more.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
import grpc.aio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

sys.path.append(sys.argv[1])
CONFIGURATION: dict[str, Any] = json.loads(sys.argv[2])

Generated: TypeAlias = Any
"""What is of the generated modules, or stands for grpcio's context: no checker can know its type."""
health, health_grpc, peer, peer_grpc = map(
    importlib.import_module, ("health_pb2", "health_pb2_grpc", "peer_pb2", "peer_pb2_grpc")
)
CODES = {code.value[0]: code for code in grpc.StatusCode}


class Figures:
    """What the tests may ask about.

    Invariant: running counts the calls whose handlers have begun and not ended; read and written count messages
    """

    def __init__(self) -> None:
        self.running = 0
        self.begun: Counter[str] = Counter()
        self.read = 0
        self.written = 0
        self.peers: Counter[str] = Counter()
        self.watching = 0

    @contextmanager
    def call(self, context: Generated) -> Iterator[None]:
        self.running += 1
        self.begun[context.peer()] += 1
        try:
            yield
        finally:
            self.running -= 1


class Servicer:
    """The four kinds of call, each as a coroutine: a generator's end would come only with the collector."""

    def __init__(self) -> None:
        self.figures = Figures()
        self.released = asyncio.Event()

    async def Single(self, order: Generated, context: Generated) -> Generated:  # noqa: N802 - the names of the service
        with self.figures.call(context):
            await self._begin(order, context)
            await self._end(order, context)
            return self._reply(order, context, order.number, 1)

    async def Down(self, order: Generated, context: Generated) -> None:  # noqa: N802
        with self.figures.call(context):
            await self._begin(order, context)
            number = 0
            while number != order.replies:
                await self._write(order, context, number, 1)
                number += 1
            await self._end(order, context)

    async def Up(self, _: Generated, context: Generated) -> Generated:  # noqa: N802
        with self.figures.call(context):
            await self._send_metadata(context)
            count, total = 0, 0
            async for order in self._orders(context):
                count, total = count + 1, total + order.number
                await self._begin(order, None)
                await self._end(order, context)
                if order.answer:
                    break
            return self._reply(peer.Order(), context, total, count)

    async def Both(self, _: Generated, context: Generated) -> None:  # noqa: N802
        with self.figures.call(context):
            await self._send_metadata(context)
            count = 0
            async for order in self._orders(context):
                count += 1
                await self._begin(order, None)
                for n in range(order.replies or (0 if order.code else 1)):
                    await self._write(order, context, n if order.replies else order.number, count)
                await self._end(order, context)
                if order.answer:
                    return

    async def _orders(self, context: Generated) -> AsyncIterator[Generated]:
        while (order := await context.read()) is not grpc.aio.EOF:
            self.figures.read += 1
            yield order

    async def _begin(self, order: Generated, context: Generated) -> None:
        if context is not None:
            await self._send_metadata(context)
        if order.sleep:
            await asyncio.sleep(order.sleep)
        if order.hold:
            await self.released.wait()

    async def _send_metadata(self, context: Generated) -> None:
        """Send back what came under ``initial-``, now, and under ``trailing-``, at the end."""
        metadata = [(key, value) for key, value in context.invocation_metadata() or () if key.startswith("trailing-")]
        if metadata:
            context.set_trailing_metadata(metadata)
        metadata = [(key, value) for key, value in context.invocation_metadata() or () if key.startswith("initial-")]
        if metadata:
            await context.send_initial_metadata(metadata)

    async def _end(self, order: Generated, context: Generated) -> None:
        if order.code:
            await context.abort(CODES[order.code], order.details, context.trailing_metadata() or ())

    async def _write(self, order: Generated, context: Generated, number: int, count: int) -> None:
        await context.write(self._reply(order, context, number, count))
        self.figures.written += 1
        if order.pause:
            await asyncio.sleep(order.pause)

    def _reply(self, order: Generated, context: Generated, number: int, count: int) -> Generated:
        remaining = context.time_remaining()
        return peer.Reply(
            number=number,
            payload=bytes(order.size) if order.size else order.payload,
            count=count,
            peer=context.peer(),
            remaining=-1 if remaining is None else remaining,
            metadata=[f"{key}={value}" for key, value in context.invocation_metadata() or ()],
        )


class Health:
    """The health checking protocol; a service that nobody spoke of is unknown."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self._statuses: dict[str, str] = dict(CONFIGURATION["health"])
        self._changed = asyncio.Condition()

    async def set(self, service: str, status: str) -> None:
        self._statuses[service] = status
        async with self._changed:
            self._changed.notify_all()

    async def Check(self, request: Generated, context: Generated) -> Generated:  # noqa: N802
        if request.service not in self._statuses:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return self._response(request.service)

    async def Watch(self, request: Generated, context: Generated) -> None:  # noqa: N802
        self._figures.watching += 1
        try:
            while True:
                told = self._response(request.service)
                await context.write(told)
                await self._change(request.service, told)
        finally:
            self._figures.watching -= 1

    async def _change(self, service: str, told: Generated) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._response(service) != told)

    def _response(self, service: str) -> Generated:
        return health.HealthCheckResponse(status=self._statuses.get(service, "SERVICE_UNKNOWN"))


def credentials() -> grpc.ServerCredentials | None:
    files = CONFIGURATION["tls"]
    if files is None:
        return None
    pair = (Path(files["key"]).read_bytes(), Path(files["certificate"]).read_bytes())
    root = Path(files["authority"]).read_bytes() if CONFIGURATION["mutual"] else None
    return grpc.ssl_server_credentials([pair], root, CONFIGURATION["mutual"])


async def obey(line: str, servicer: Servicer, checker: Health) -> object:
    """Do what a line says, and return the answer."""
    match line.split():
        case ["figures"]:
            return servicer.figures.__dict__
        case ["release"]:
            servicer.released.set()
        case ["health", service, status]:
            await checker.set(service, status)
        case _:
            raise ValueError(line)
    return None


def say(what: object) -> None:
    sys.stdout.write(f"{json.dumps(what)}\n")
    sys.stdout.flush()


async def main() -> None:
    compression = grpc.Compression.Gzip if CONFIGURATION["gzip"] else None
    server = grpc.aio.server(options=list(map(tuple, CONFIGURATION["options"])), compression=compression)
    servicer = Servicer()
    checker = Health(servicer.figures)
    peer_grpc.add_PeerServicer_to_server(servicer, server)
    if CONFIGURATION["health"]:
        health_grpc.add_HealthServicer_to_server(checker, server)
    address = f"127.0.0.1:{CONFIGURATION['port']}"
    secrets = credentials()
    port = server.add_insecure_port(address) if secrets is None else server.add_secure_port(address, secrets)
    await server.start()
    say(port)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        say(await obey(line, servicer, checker))
    # Whoever started it has gone: nothing that still runs matters.
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
