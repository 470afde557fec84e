"""The stream of a connection that was given over to another protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

    from ._foreign import Foreign
    from ._hold import Hold


class UpgradedStream:
    """httpcore's stream after an upgrade or a CONNECT. It holds the lease, as the response does: each may end it.

    Args:
        stream: httpcore's.
        hold: ends when this is closed.
    """

    def __init__(self, stream: Foreign, hold: Hold) -> None:
        self._upgraded = stream
        self._hold = hold

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what is there, at most ``max_bytes``; nothing at the end of the stream."""
        data: bytes = await self._upgraded.read(max_bytes, timeout)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of ``buffer``."""
        await self._upgraded.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection, and end the lease."""
        try:
            await self._upgraded.aclose()
        finally:
            self._hold.abandon()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> UpgradedStream:
        """Return the stream that speaks TLS over this one."""
        return type(self)(await self._upgraded.start_tls(ssl_context, server_hostname, timeout), self._hold)

    def get_extra_info(self, info: str) -> Foreign:
        """Return what httpcore's stream knows of ``info``."""
        return self._upgraded.get_extra_info(info)
