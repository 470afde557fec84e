"""The server of the guide: grpcio's own, as a process of its own, with the service that docs/grpc.md defines.

Run it with the directory of the generated modules, and the paths of key, certificate and authority for mutual TLS.
"""

from __future__ import annotations

import importlib
import sys
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc

if TYPE_CHECKING:
    from collections.abc import Iterator

sys.path.append(sys.argv[1])

Generated: TypeAlias = Any
"""What is of the generated modules, or stands for grpcio's context: no checker can know its type."""
messages, service = map(importlib.import_module, ("greeter_pb2", "greeter_pb2_grpc"))


class Greeter:
    """Greets whoever comes, and says how they came: with which metadata, over which connection."""

    def __init__(self) -> None:
        self._flaky: set[str] = set()

    def SayHello(self, request: Generated, context: Generated) -> Generated:  # noqa: N802 - the names of the service
        if request.name.startswith("flaky") and request.name not in self._flaky:
            self._flaky.add(request.name)
            context.abort(grpc.StatusCode.UNAVAILABLE, "once only")
        if request.name == "nobody":
            context.abort(grpc.StatusCode.NOT_FOUND, "nobody is not known")
        came = dict(context.invocation_metadata())
        told = {key: came[key] for key in ("authorization", "signature", "grpc-accept-encoding") if key in came}
        return self._reply(f"hello {request.name} {context.peer()} {told}")

    def Repeat(self, request: Generated, context: Generated) -> Iterator[Generated]:  # noqa: N802
        came = dict(context.invocation_metadata())
        for number in range(3):
            yield self._reply(f"{number} {request.name} {came.get('signature', '')}".strip())

    def Collect(self, requests: Iterator[Generated], _: Generated) -> Generated:  # noqa: N802
        return self._reply(" ".join(request.name for request in requests))

    def Chat(self, requests: Iterator[Generated], _: Generated) -> Iterator[Generated]:  # noqa: N802
        for request in requests:
            yield self._reply(f"hello {request.name}")

    def _reply(self, text: str) -> Generated:
        return messages.HelloReply(text=text)


def main() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(10), options=[("grpc.so_reuseport", 0)])
    service.add_GreeterServicer_to_server(Greeter(), server)
    if len(sys.argv) > 2:
        key, certificate, authority = (Path(path).read_bytes() for path in sys.argv[2:])
        secrets = grpc.ssl_server_credentials([(key, certificate)], authority, require_client_auth=True)
        port = server.add_secure_port("127.0.0.1:0", secrets)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    sys.stdin.read()  # until whoever started it closes it, or has gone
    server.stop(None)


if __name__ == "__main__":
    main()
