"""Opening connections: the stream first, then the class of connection that was agreed on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import count
from typing import TYPE_CHECKING, Any, Final, final

import trio

from ._connection import Connection, SharedConnection, SingleConnection

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from ._dialler import Dialler, Versions
    from ._origin import Origin
    from ._stream import NetworkStream
    from ._ticket import Ticket
    from ._trace import Tracer

BACKOFF: Final = 0.5
"""Seconds to wait before the second repetition of an attempt; the first is made at once, and later ones double it."""


class Connector(ABC):
    """One route to any origin.

    Args:
        dialler: opens the streams.
        context: for TLS with an origin.
    """

    def __init__(self, dialler: Dialler, context: ssl.SSLContext) -> None:
        self.dialler = dialler
        self.core = dialler.library.core
        self.context = context

    @abstractmethod
    async def open(self, origin: Origin, versions: Versions, ticket: Ticket) -> Connection:
        """Open a connection to ``origin`` within the connect time-out of ``ticket``; tell it of every step.

        Raises:
            Exception: httpcore's ``ConnectError``, ``ConnectTimeout`` or ``ProxyError``; or what the tracer raised.
        """

    async def over(
        self, stream: NetworkStream, origin: Origin, versions: Versions, *, prepare: Callable[[Any], Any] | None = None
    ) -> Connection:
        """Return the connection over ``stream``, which is closed if that fails."""
        where = self.core.Origin(origin.scheme, origin.host, origin.port)
        if not versions.agreed_on_http2(stream):
            return SingleConnection(self.core.AsyncHTTP11Connection(where, stream), stream, prepare)
        wire = self.dialler.library.wire(stream)
        try:
            await wire.greet()
        except BaseException:
            await trio.aclose_forcefully(wire)
            raise
        return SharedConnection(self.core.AsyncHTTP2Connection(where, wire), wire)


@final
class DirectConnector(Connector):
    """No proxy.

    Args:
        dialler: opens the streams.
        context: for TLS.
        retries: how many times a failed attempt is repeated.
    """

    def __init__(self, dialler: Dialler, context: ssl.SSLContext, retries: int) -> None:
        super().__init__(dialler, context)
        self._retries = retries

    async def open(self, origin: Origin, versions: Versions, ticket: Ticket) -> Connection:
        """See `Connector.open`."""
        return await self.over(await self._repeat(origin, versions, ticket), origin, versions)

    async def _repeat(self, origin: Origin, versions: Versions, ticket: Ticket) -> NetworkStream:
        tracer = self.dialler.tracer("connection", ticket)
        delays = _delays()
        for attempt in count():
            info: dict[str, Any] = {}
            try:
                return await self._try(origin, versions, tracer, ticket.timeouts.get("connect"), info)
            except (self.core.ConnectError, self.core.ConnectTimeout):
                if attempt >= self._retries:
                    raise
            await tracer.pause(info, next(delays))
        raise AssertionError("bug: counting has an end")

    async def _try(
        self, origin: Origin, versions: Versions, tracer: Tracer, timeout: float | None, info: dict[str, Any]
    ) -> NetworkStream:
        sockets = self.dialler.sockets
        if sockets.uds is None:
            info |= tcp_info(self.dialler, origin.address, origin.port, timeout)
            stream = await self.dialler.tcp(tracer, origin.address, origin.port, info)
        else:
            info |= {"path": sockets.uds, "timeout": timeout, "socket_options": sockets.options}
            stream = await self.dialler.unix(tracer, sockets.uds, info)
        if not origin.is_secure:
            return stream
        return await self.dialler.tls(tracer, stream, self.context, origin.expected_name, versions, timeout)


def tcp_info(dialler: Dialler, host: str, port: int, timeout: float | None) -> dict[str, Any]:
    """Return what a tracer is told of a TCP connection."""
    return {
        "host": host,
        "port": port,
        "local_address": dialler.sockets.local_address,
        "timeout": timeout,
        "socket_options": dialler.sockets.options,
    }


def _delays() -> Iterator[float]:
    yield 0.0
    for doublings in count():
        yield BACKOFF * 2**doublings
