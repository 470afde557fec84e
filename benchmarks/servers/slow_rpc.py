"""grpcio's own server, for calls that take half a second each: ``python -m benchmarks.servers.slow_rpc``.

It serves no more streams at a time than many a server. What becomes of more is decided by both sides: the client keeps
to the limit as it counts, and this server, which counts otherwise, refuses some all the same. It prints its port, and
ends with its input.
"""

from __future__ import annotations

import asyncio
import sys

import grpc
from grpc import aio

from .messages import METHOD, PAUSE, RESPONSE, SERVICE, STREAM_LIMIT


async def serve() -> None:
    """Serve until the standard input ends."""
    server = aio.server(options=[("grpc.max_concurrent_streams", STREAM_LIMIT)])
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {METHOD: grpc.unary_unary_rpc_method_handler(_answer)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(None)


async def _answer(request: bytes, context: object) -> bytes:
    del request, context
    await asyncio.sleep(PAUSE)
    return RESPONSE


if __name__ == "__main__":
    asyncio.run(serve())
