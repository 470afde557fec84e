"""Connections through a SOCKS5 proxy."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

import trio
from socksio import ProtocolError, socks5

from ._connector import Connector
from ._stream import trio_seconds

if TYPE_CHECKING:
    import ssl

    from ._connection import Connection
    from ._dialler import Dialler, Versions
    from ._foreign import Foreign
    from ._origin import Origin
    from ._proxy import Proxy
    from ._stream import NetworkStream
    from ._ticket import Ticket

_REPLIES: Final = {
    1: "General SOCKS server failure",
    2: "Connection not allowed by ruleset",
    3: "Network unreachable",
    4: "Host unreachable",
    5: "Connection refused",
    6: "TTL expired",
    7: "Command not supported",
    8: "Address type not supported",
}


@final
class SocksConnector(Connector):
    """Goes through a SOCKS5 proxy."""

    def __init__(self, dialler: Dialler, context: ssl.SSLContext, proxy: Proxy) -> None:
        super().__init__(dialler, context)
        self._proxy = proxy

    async def open(self, origin: Origin, versions: Versions, ticket: Ticket) -> Connection:
        """See `Connector.open`."""
        proxy = self._proxy.origin
        tracer = self.dialler.tracer("socks", ticket)
        timeout = ticket.timeouts.get("connect")
        stream = await self.dialler.tcp(
            tracer, proxy.address, proxy.port, {"host": proxy.address, "port": proxy.port, "timeout": timeout}
        )
        info = {"stream": stream, "host": origin.address, "port": origin.port, "auth": self._proxy.auth}
        try:
            await tracer.step("setup_socks5_connection", info, partial(self._greet, stream, origin, timeout))
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        if origin.is_secure:
            stream = await self.dialler.tls(tracer, stream, self.context, origin.expected_name, versions, timeout)
        return await self.over(stream, origin, versions)

    async def _greet(self, stream: NetworkStream, origin: Origin, timeout: float | None) -> NetworkStream:
        try:
            with trio.fail_after(trio_seconds(timeout)):
                await self._negotiate(stream, origin)
        except trio.TooSlowError as error:
            raise self.core.ConnectTimeout(error) from error
        except ProtocolError as error:
            raise self.core.ProxyError(f"The proxy does not speak SOCKS5: {error}") from error
        return stream

    async def _negotiate(self, stream: NetworkStream, origin: Origin) -> None:
        state: Any = socks5.SOCKS5Connection()  # its overloads are beyond a type checker
        auth = self._proxy.auth
        method = socks5.SOCKS5AuthMethod.NO_AUTH_REQUIRED if auth is None else socks5.SOCKS5AuthMethod.USERNAME_PASSWORD
        state.send(socks5.SOCKS5AuthMethodsRequest([method]))
        choice = await self._ask(stream, state)
        if choice.method != method:
            raise self.core.ProxyError(f"Requested {method.name} from proxy server, but got {choice.method.name}.")
        if auth is not None:
            state.send(socks5.SOCKS5UsernamePasswordRequest(*auth))
            if not (await self._ask(stream, state)).success:
                raise self.core.ProxyError("Invalid username/password")
        state.send(
            socks5.SOCKS5CommandRequest.from_address(socks5.SOCKS5Command.CONNECT, (origin.address, origin.port))
        )
        code = (await self._ask(stream, state)).reply_code
        if code != socks5.SOCKS5ReplyCode.SUCCEEDED:
            reason = _REPLIES.get(code.value[0], "unknown reply")
            raise self.core.ProxyError(f"Proxy Server could not connect: {reason}.")

    async def _ask(self, stream: NetworkStream, state: Foreign) -> Foreign:
        await stream.write(state.data_to_send())
        answer = await stream.read(4096)
        if not answer:
            raise self.core.ProxyError("The proxy has closed the connection.")
        return state.receive_data(answer)
