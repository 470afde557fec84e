"""Connections through an HTTP proxy."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

import trio

from ._connector import Connector, tcp_info
from ._dialler import HTTP1

if TYPE_CHECKING:
    import ssl

    from ._connection import Connection
    from ._dialler import Dialler, Versions
    from ._foreign import Foreign
    from ._origin import Origin
    from ._stream import NetworkStream
    from ._ticket import Ticket

Headers = list[tuple[bytes, bytes]]


@final
@dataclass(frozen=True, slots=True)
class Proxy:
    """Where a proxy is, and what it wants to be told."""

    origin: Origin
    auth: tuple[bytes, bytes] | None = field(repr=False)
    headers: Headers = field(repr=False)
    context: ssl.SSLContext | None = None
    """For TLS with the proxy itself."""


@final
class HTTPProxyConnector(Connector):
    """Sends requests for plain origins to the proxy, and tunnels through it to all others."""

    def __init__(self, dialler: Dialler, context: ssl.SSLContext, proxy: Proxy) -> None:
        super().__init__(dialler, context)
        self._proxy = proxy
        self._headers = [*_authorization(proxy.auth), *proxy.headers]

    async def open(self, origin: Origin, versions: Versions, ticket: Ticket) -> Connection:
        """See `Connector.open`."""
        stream = await self._to_proxy(ticket)
        proxy = self._proxy.origin
        if origin.scheme == b"http":
            return await self.over(stream, proxy, HTTP1, prepare=self._forwarded)
        tunnel = await self._tunnelled(stream, origin, ticket)
        if origin.is_secure:
            tracer = self.dialler.tracer("proxy", ticket)
            timeout = ticket.timeouts.get("connect")
            tunnel = await self.dialler.tls(tracer, tunnel, self.context, origin.expected_name, versions, timeout)
        return await self.over(tunnel, origin, versions)

    async def _to_proxy(self, ticket: Ticket) -> NetworkStream:
        proxy = self._proxy.origin
        tracer = self.dialler.tracer("connection", ticket)
        timeout = ticket.timeouts.get("connect")
        info = tcp_info(self.dialler, proxy.address, proxy.port, timeout)
        stream = await self.dialler.tcp(tracer, proxy.address, proxy.port, info)
        if not proxy.is_secure:
            return stream
        context = self._proxy.context or self.core.default_ssl_context()
        return await self.dialler.tls(tracer, stream, context, proxy.address, HTTP1, timeout)

    def _forwarded(self, request: Foreign) -> Foreign:
        """Return the request as the proxy wants it: for a whole URL, with the proxy's headers."""
        url = request.url
        return self._for_proxy(
            request.method,
            bytes(url) if url.target.startswith(b"/") else url.target,
            _merged(self._headers, request.headers),
            request.extensions,
            request.stream,
        )

    def _for_proxy(
        self, method: bytes, target: bytes, headers: Headers, extensions: Foreign, content: Foreign = None
    ) -> Foreign:
        proxy = self._proxy.origin
        url = self.core.URL(scheme=proxy.scheme, host=proxy.host, port=proxy.port, target=target)
        # A target or a name for TLS is meant for the origin.
        others = {key: value for key, value in extensions.items() if key not in {"sni_hostname", "target"}}
        return self.core.Request(method, url, headers=headers, content=content, extensions=others)

    async def _tunnelled(self, stream: NetworkStream, origin: Origin, ticket: Ticket) -> NetworkStream:
        """Ask the proxy to connect ``stream`` with ``origin``; it is closed if that fails."""
        proxy = self._proxy.origin
        target = b"%b:%d" % (f"[{origin.address}]".encode() if b":" in origin.host else origin.host, origin.port)
        headers = _merged([(b"Host", target), (b"Accept", b"*/*")], self._headers)
        extensions: dict[str, Any] = {"timeout": ticket.timeouts}
        if ticket.trace is not None:
            extensions["trace"] = ticket.tell
        request = self._for_proxy(b"CONNECT", target, headers, extensions)
        connection = self.core.AsyncHTTP11Connection(self.core.Origin(proxy.scheme, proxy.host, proxy.port), stream)
        try:
            response = await connection.handle_async_request(request)
            if not 200 <= response.status < 300:  # noqa: PLR2004 - success
                reason = response.extensions.get("reason_phrase", b"").decode("ascii", errors="ignore")
                raise self.core.ProxyError(f"{response.status} {reason}")
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream


def _authorization(auth: tuple[bytes, bytes] | None) -> Headers:
    if auth is None:
        return []
    return [(b"Proxy-Authorization", b"Basic " + base64.b64encode(b":".join(auth)))]


def _merged(first: Headers, override: Headers) -> Headers:
    names = {name.lower() for name, _ in override}
    return [*((name, value) for name, value in first if name.lower() not in names), *override]
