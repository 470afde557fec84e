"""Calls of all four kinds over pooled channels; the server is killed half-way and started again."""

import argparse
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent import futures

import grpc
import grpc.aio
import trio

from nimblepool_grpc import PooledChannel

QUESTIONS = 100
HALF = QUESTIONS // 2


def encode(number: int) -> bytes:
    """Make a message of a number: JSON here, where a `.proto` would make it protobuf."""
    return json.dumps(number).encode()


def decode(message: bytes) -> int:
    """Make a number of a message."""
    return int(json.loads(message))


def square(number: int, _: grpc.ServicerContext) -> int:
    """One request, one response; slowly enough to be killed meanwhile."""
    time.sleep(0.01)
    return number**2


def count(number: int, _: grpc.ServicerContext) -> Iterator[int]:
    """One request, a stream of responses."""
    yield from range(number)


def add(numbers: Iterator[int], _: grpc.ServicerContext) -> int:
    """Take a stream of requests, give one response."""
    return sum(numbers)


def accumulate(numbers: Iterator[int], _: grpc.ServicerContext) -> Iterator[int]:
    """Answer each request of a stream while it goes on."""
    return itertools.accumulate(numbers)


def run_server(port: int) -> None:
    """Serve on ``port`` until killed; say which port it is."""
    server = grpc.server(futures.ThreadPoolExecutor(20))
    handlers = {
        "Square": grpc.unary_unary_rpc_method_handler(square, decode, encode),
        "Count": grpc.unary_stream_rpc_method_handler(count, decode, encode),
        "Add": grpc.stream_unary_rpc_method_handler(add, decode, encode),
        "Accumulate": grpc.stream_stream_rpc_method_handler(accumulate, decode, encode),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Numbers", handlers),))
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


def start_server(port: int = 0) -> tuple[subprocess.Popen[str], int]:
    """Start the server as a process of its own; return it and its port."""
    command = [sys.executable, __file__, "--serve", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    if process.stdout is None:
        raise RuntimeError("the server was started without a pipe")
    return process, int(process.stdout.readline())


class NumbersStub:
    """What grpcio-tools would generate."""

    def __init__(self, channel: PooledChannel) -> None:
        self.square = channel.unary_unary("/Numbers/Square", encode, decode)
        self.count = channel.unary_stream("/Numbers/Count", encode, decode)
        self.add = channel.stream_unary("/Numbers/Add", encode, decode)
        self.accumulate = channel.stream_stream("/Numbers/Accumulate", encode, decode)


async def ask_square(stub: NumbersStub, n: int) -> bool:
    """Await a response."""
    answer: int = await stub.square(n, wait_for_ready=True)
    return answer == n**2


async def ask_count(stub: NumbersStub, n: int) -> bool:
    """Iterate over the responses."""
    return [number async for number in stub.count(n, wait_for_ready=True)] == list(range(n))


async def ask_sum(stub: NumbersStub, n: int) -> bool:
    """Send what an iterator gives."""
    answer: int = await stub.add(range(n), wait_for_ready=True)
    return answer == sum(range(n))


async def ask_sums(stub: NumbersStub, n: int) -> bool:
    """Converse: read the response to each request before the next is written."""
    numbers = range(n % 10)
    totals: list[object] = []
    async with stub.accumulate(wait_for_ready=True) as call:
        for number in numbers:
            await call.write(number)
            totals.append(await call.read())
    return totals == list(itertools.accumulate(numbers))


Question = Callable[[NumbersStub, int], Awaitable[bool]]
QUESTION_KINDS: tuple[Question, ...] = (ask_square, ask_count, ask_sum, ask_sums)


async def ask_until_answered(question: Question, stub: NumbersStub, n: int) -> bool:
    """Ask again what the server's end has cut off: to ask twice does no harm here."""
    while True:
        try:
            return await question(stub, n)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            print(f"no answer to {question.__name__}({n}): {error.details()}")


async def ask_all(stub: NumbersStub, half_way: trio.Event) -> list[bool]:
    """Ask all questions, ten at a time."""
    answers: list[bool] = []
    limit = trio.CapacityLimiter(10)

    async def ask(n: int) -> None:
        async with limit:
            answers.append(await ask_until_answered(QUESTION_KINDS[n % 4], stub, n))
        if len(answers) == HALF:
            half_way.set()

    async with trio.open_nursery() as nursery:
        for n in range(QUESTIONS):
            nursery.start_soon(ask, n)
    return answers


async def main() -> None:
    """Ask, kill the server, start it again, and show that every answer came."""
    server, port = await trio.to_thread.run_sync(start_server)
    half_way = trio.Event()

    async def restart() -> None:
        nonlocal server
        await half_way.wait()
        print("killing the server")
        server.kill()
        server.communicate()
        server, _ = await trio.to_thread.run_sync(start_server, port)
        print("the server is back")

    try:
        async with PooledChannel(f"127.0.0.1:{port}", channels=2) as channel:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(restart)
                answers = await ask_all(NumbersStub(channel), half_way)
            stats = channel.stats
        print(
            f"{sum(answers)} of {QUESTIONS} answers are right; {stats.opened} channels were opened, {stats.lost} lost"
        )
    finally:
        server.kill()
        server.communicate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", type=int, metavar="PORT", help="be the server")
    port_to_serve = parser.parse_args().serve
    if port_to_serve is None:
        trio.run(main)
    else:
        run_server(port_to_serve)
