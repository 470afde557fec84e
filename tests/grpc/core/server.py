"""grpcio's own server, on asyncio, in a process of its own: ``server.py [address]``; writes its port on stdout."""

from __future__ import annotations

import asyncio
import collections
import json
import sys
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Context = grpc.aio.ServicerContext[bytes, bytes]

counts: collections.Counter[str] = collections.Counter()
"""How many calls of the kinds that wait are running, and were cancelled."""


async def until_cancelled() -> None:
    counts["running"] += 1
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        counts["cancelled"] += 1
        raise
    finally:
        counts["running"] -= 1


async def echo(request: bytes, context: Context) -> bytes:
    return request


async def tell(request: bytes, context: Context) -> bytes:
    """Answer with what was received beside the request, and send metadata both times."""
    metadata = [
        (key, value if isinstance(value, str) else value.hex()) for key, value in context.invocation_metadata() or ()
    ]
    await context.send_initial_metadata((("first", "1"), ("first-bin", b"\x00\xff")))
    context.set_trailing_metadata((("last", "2"), ("last-bin", b"\xff\x00"), ("last", "3")))
    return json.dumps({"metadata": metadata, "time_remaining": context.time_remaining()}).encode()


async def fail(request: bytes, context: Context) -> bytes:
    """Abort with the code and the details that the request names."""
    code, details = json.loads(request)
    await context.send_initial_metadata((("first", "1"),))
    await context.abort(grpc.StatusCode[code], details, (("reason", "asked"),))
    raise AssertionError


async def hang(request: bytes, context: Context) -> bytes:
    await until_cancelled()
    return b""


async def report(request: bytes, context: Context) -> bytes:
    return json.dumps(dict(counts)).encode()


async def count(request: bytes, context: Context) -> AsyncIterator[bytes]:
    """Send as many messages as the request says, of the size it says; then end, or hang."""
    number, size, then = json.loads(request)
    for index in range(number):
        yield str(index).encode().ljust(size, b".")
    if then == "hang":
        await until_cancelled()
    elif then != "end":
        await context.abort(grpc.StatusCode[then], "after all")


async def gather(requests: AsyncIterator[bytes], context: Context) -> bytes:
    return b",".join([request async for request in requests])


async def refuse(requests: AsyncIterator[bytes], context: Context) -> bytes:
    """End before the requests do."""
    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")
    raise AssertionError


async def ignore(requests: AsyncIterator[bytes], context: Context) -> bytes:
    """Read nothing."""
    await until_cancelled()
    return b""


async def chat(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
    """Send back each request; hang at ``hang``, abort at ``abort``."""
    await context.send_initial_metadata((("first", "1"),))
    async for request in requests:
        if request == b"hang":
            await until_cancelled()
        if request == b"abort":
            await context.abort(grpc.StatusCode.ABORTED, "as told")
        yield request


HANDLERS: dict[str, tuple[Callable[..., Any], Callable[..., Awaitable[bytes] | AsyncIterator[bytes]]]] = {
    "Echo": (grpc.unary_unary_rpc_method_handler, echo),
    "Tell": (grpc.unary_unary_rpc_method_handler, tell),
    "Fail": (grpc.unary_unary_rpc_method_handler, fail),
    "Hang": (grpc.unary_unary_rpc_method_handler, hang),
    "Report": (grpc.unary_unary_rpc_method_handler, report),
    "Count": (grpc.unary_stream_rpc_method_handler, count),
    "Gather": (grpc.stream_unary_rpc_method_handler, gather),
    "Refuse": (grpc.stream_unary_rpc_method_handler, refuse),
    "Ignore": (grpc.stream_unary_rpc_method_handler, ignore),
    "Chat": (grpc.stream_stream_rpc_method_handler, chat),
}


async def main(address: str) -> None:
    # One port, one process: a second server on the same port is to fail, not to share it.
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    handlers = {name: make(behaviour) for name, (make, behaviour) in HANDLERS.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", handlers),))
    port = server.add_insecure_port(address)
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # the tests' end closes it
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:0"))
