"""The transport for httpx."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Unpack

import httpcore
import httpx

from ._library import library_of
from ._options import ClientOptions, PoolingOptions
from ._transport import Transport

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    from ._options import Certificate, SocketOption

LIBRARY: Final = library_of(httpx, httpcore)
LIMITS: Final = httpx.Limits(max_connections=100, max_keepalive_connections=20)
"""httpx's own default."""


class PooledTransport(Transport, httpx.AsyncBaseTransport):
    """A transport for httpx on trio: ``httpx.AsyncClient(transport=PooledTransport())``.

    It keeps one pool of connections for each origin, and one limit over all. Entering the client, or its first request,
    opens the pools; leaving it, or ``aclose``, closes every connection. The docs' page on HTTP says what differs from
    httpx's own transport.

    Args:
        verify: as in ``httpx.AsyncHTTPTransport``, like all others up to ``socket_options``.
        cert: a client certificate.
        trust_env: whether ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` count.
        http1: whether HTTP/1.1 may be spoken.
        http2: whether HTTP/2 may be; without TLS, only if HTTP/1.1 may not.
        limits: connections of all origins together; ``max_keepalive_connections`` counts idle ones only.
        proxy: an HTTP or SOCKS5 proxy for all requests.
        uds: a Unix domain socket to send all requests to.
        local_address: where connections come from.
        retries: how many times a failed attempt to connect is repeated; not with a proxy.
        socket_options: set on every socket.
        pooling: see `PoolingOptions`.

    Raises:
        ValueError: an option has a value that is not allowed.
        TypeError: an option does not exist, or is of the wrong type.
    """

    def __init__(  # noqa: PLR0917 - the client's own transport takes them by position, too
        self,
        verify: ssl.SSLContext | str | bool = True,
        cert: Certificate | None = None,
        trust_env: bool = True,
        http1: bool = True,
        http2: bool = False,
        limits: httpx.Limits = LIMITS,
        proxy: httpx.Proxy | httpx.URL | str | None = None,
        uds: str | None = None,
        local_address: str | None = None,
        retries: int = 0,
        socket_options: Iterable[SocketOption] | None = None,
        **pooling: Unpack[PoolingOptions],
    ) -> None:
        options = ClientOptions(
            verify=verify,
            cert=cert,
            trust_env=trust_env,
            http1=http1,
            http2=http2,
            limits=limits,
            proxy=proxy,
            uds=uds,
            local_address=local_address,
            retries=retries,
            socket_options=socket_options,
        )
        super().__init__(LIBRARY, options, pooling)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send ``request`` and return its response, as soon as its headers are there; httpx's client calls this.

        Cancelling it costs the connection at the most.

        Raises:
            httpx.TransportError: as httpx's own transport does.
        """
        response: httpx.Response = await self._handle(request)
        return response
