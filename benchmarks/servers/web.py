"""A web server with as little to do as possible: ``python -m benchmarks.servers.web CERTIFICATE KEY ORIGINS``.

It answers every request with 204, over HTTP/1.1 on as many ports as there are to be origins and over HTTP/2 with TLS on
one more; prints the ports as a line of JSON, and ends with its input. uvloop and a parser that only looks for the end
of a request keep it several times faster than any of its clients; it understands requests without a body, no others.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from typing import Any

from benchmarks.contender import load_peer

ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
END = b"\r\n\r\n"
BACKLOG = 1_024
STREAMS = 100


class Http1(asyncio.Protocol):
    """One connection that speaks HTTP/1.1 and stays open."""

    def __init__(self) -> None:
        self._rest = b""

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - uvloop's own
        """Keep where to write."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every request that has ended."""
        *requests, self._rest = (self._rest + data).split(END)
        if requests:
            self._transport.write(ANSWER * len(requests))


class Http2(asyncio.Protocol):
    """One connection that speaks HTTP/2, as the library h2 does."""

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - uvloop's own
        """Say hello."""
        h2, config = load_peer("h2.connection"), load_peer("h2.config")
        self._transport = transport
        self._requested = load_peer("h2.events").RequestReceived
        self._connection = h2.H2Connection(config.H2Configuration(client_side=False, header_encoding=None))
        self._connection.local_settings.max_concurrent_streams = STREAMS
        self._connection.initiate_connection()
        self._send()

    def data_received(self, data: bytes) -> None:
        """Answer every request that has begun."""
        for event in self._connection.receive_data(data):
            if isinstance(event, self._requested):
                self._connection.send_headers(event.stream_id, [(b":status", b"204")], end_stream=True)
        self._send()

    def _send(self) -> None:
        self._transport.write(self._connection.data_to_send())


async def serve(certificate: str, key: str, origins: int) -> None:
    """Serve until the standard input ends."""
    loop = asyncio.get_running_loop()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    secure = await loop.create_server(Http2, "127.0.0.1", 0, ssl=context, backlog=BACKLOG)
    plain = [await loop.create_server(Http1, "127.0.0.1", 0, backlog=BACKLOG) for _ in range(origins)]
    print(json.dumps([server.sockets[0].getsockname()[1] for server in (secure, *plain)]), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=load_peer("uvloop").new_event_loop) as runner:
        runner.run(serve(sys.argv[1], sys.argv[2], int(sys.argv[3])))
