"""Opening network streams, and telling of every step as httpcore does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

import trio

from ._stream import trio_seconds
from ._trace import Tracer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from ._library import Library
    from ._stream import NetworkStream
    from ._ticket import Ticket


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SocketSettings:
    """Where sockets come from, and what is set on them."""

    uds: str | None = None
    local_address: str | None = None
    options: tuple[tuple[Any, ...], ...] | None = None


@final
@dataclass(frozen=True, slots=True)
class Versions:
    """Which versions of HTTP may be spoken; HTTP/2 over plain text only if it is the only one."""

    http1: bool
    http2: bool

    def offered(self) -> list[str]:
        """Return what is offered in a TLS handshake, the preferred one first."""
        if not self.http2:
            return ["http/1.1"]
        return ["h2", "http/1.1"] if self.http1 else ["h2"]

    def may_be_shared(self, *, secure: bool) -> bool:
        """Tell whether a connection may turn out to speak HTTP/2."""
        return self.http2 and (secure or not self.http1)

    def agreed_on_http2(self, stream: NetworkStream) -> bool:
        """Tell whether ``stream`` is to speak HTTP/2."""
        tls = stream.get_extra_info("ssl_object")
        return (self.http2 and not self.http1) or (tls is not None and tls.selected_alpn_protocol() == "h2")


HTTP1: Final = Versions(http1=True, http2=False)


@final
@dataclass(frozen=True, slots=True)
class Dialler:
    """Opens streams of one pair of libraries."""

    library: Library
    sockets: SocketSettings

    def tracer(self, part: str, ticket: Ticket) -> Tracer:
        """Return who tells ``ticket`` of the steps that httpcore's module ``part`` would tell it of."""
        return Tracer(f"{self.library.core_name}.{part}", ticket)

    async def tcp(self, tracer: Tracer, host: str, port: int, info: dict[str, Any]) -> NetworkStream:
        """Open a TCP connection."""
        connect = partial(trio.open_tcp_stream, host, port, local_address=self.sockets.local_address)
        return await tracer.step("connect_tcp", info, partial(self._connect, connect, info["timeout"]))

    async def unix(self, tracer: Tracer, path: str, info: dict[str, Any]) -> NetworkStream:
        """Connect to a Unix domain socket."""
        connect = partial(trio.open_unix_socket, path)
        return await tracer.step("connect_unix_socket", info, partial(self._connect, connect, info["timeout"]))

    async def tls(  # noqa: PLR0917 - they are what a handshake needs
        self,
        tracer: Tracer,
        stream: NetworkStream,
        context: ssl.SSLContext,
        name: str,
        versions: Versions,
        timeout: float | None,
    ) -> NetworkStream:
        """Begin TLS on ``stream``, which is closed if that fails."""
        info = {"ssl_context": context, "server_hostname": name, "timeout": timeout}

        async def shake_hands() -> NetworkStream:
            # A context may serve several transports: what it offers is set, and copied, without a pause between.
            context.set_alpn_protocols(versions.offered())
            return await stream.start_tls(context, name, timeout)

        try:
            return await tracer.step("start_tls", info, shake_hands)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise

    async def _connect(
        self, connect: Callable[[], Awaitable[trio.SocketStream]], timeout: float | None
    ) -> NetworkStream:
        errors = self.library.stream.errors
        try:
            with trio.fail_after(trio_seconds(timeout)):
                stream = await connect()
            return self.library.stream(self._with_options(stream))
        except trio.TooSlowError as error:
            raise errors.connect_timeout(error) from error
        except (trio.BrokenResourceError, OSError) as error:
            raise errors.connect(error) from error

    def _with_options(self, stream: trio.SocketStream) -> trio.SocketStream:
        try:
            for option in self.sockets.options or ():
                stream.setsockopt(*option)
        except BaseException:
            stream.socket.close()
            raise
        return stream
