"""The body of a response, which holds the connection until it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self, cast

import trio

from ._stream import trio_seconds

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ._connection import SharedConnection
    from ._foreign import Foreign
    from ._hold import Hold
    from ._library import Library
    from ._wire import Mail

CLOSING: Final = 5.0
"""Seconds that a connection may take to be closed in the midst of a response."""
SWITCHING_PROTOCOLS: Final = 101


class Body:
    """What is left of a response. Each library has a subclass that is an ``AsyncByteStream`` of its own, too.

    It is its own iterator, and no generator: what a generator leaves undone when it is abandoned, the collector would
    do, at any time.

    Args:
        response: httpcore's, whose body this is.
        hold: ends exactly when the body has been read, was closed, or failed; or with this object.
        library: makes the client's exceptions of httpcore's.
        request: httpcore's, which was answered.
    """

    __slots__ = ("_content", "_hold", "_lasts", "_library", "_parts")

    def __init__(self, response: Foreign, hold: Hold, library: Library, request: Foreign) -> None:
        self._content = response.stream
        self._hold = hold
        self._library = library
        self._lasts = has_switched(request.method, response.status)
        self._parts: AsyncGenerator[bytes, None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._hold.is_held:
            raise StopAsyncIteration
        parts = self._parts
        if parts is None:
            parts = self._parts = self._content.__aiter__()
        try:
            return await self._next(parts)
        except StopAsyncIteration:
            if not self._lasts:
                await self._finish()
            raise
        except BaseException as error:
            await self._fail(error)
            translation = self._library.translated(error)
            if translation is error:
                raise
            raise translation from error

    async def aclose(self) -> None:
        """End the lease, and close the connection if the body was not read to its end. Idempotent.

        A cancellation does not cut it short; it takes 5 seconds at the most.
        """
        if self._hold.is_held:
            await self._leave()

    async def _next(self, parts: AsyncGenerator[bytes, None]) -> bytes:
        return await parts.__anext__()

    async def _finish(self) -> None:
        """Let httpcore know that the body has been read. If that is cancelled, the connection is not kept."""
        try:
            await self._content.aclose()
        finally:
            self._hold.end()

    async def _leave(self) -> None:
        """End a body that may not have been read to its end."""
        try:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSING):
                if self._parts is not None:
                    await self._parts.aclose()
                await self._content.aclose()
        finally:
            self._hold.end()

    async def _fail(self, error: BaseException) -> None:  # noqa: ARG002 - HTTP/1.1 survives none
        """End a body that httpcore has given up for ``error``."""
        self._hold.abandon()


class SharedBody(Body):
    """The same over HTTP/2, where others read from the connection, too."""

    __slots__ = ("_connection", "_mail", "_seconds", "_stream_id")

    def __init__(self, response: Foreign, hold: Hold, library: Library, request: Foreign) -> None:
        super().__init__(response, hold, library, request)
        self._connection = cast("SharedConnection", hold.connection)
        self._stream_id: int = response.extensions["stream_id"]
        self._seconds: float | None = request.stream.seconds
        self._mail: Mail = request.stream.mail

    async def _next(self, parts: AsyncGenerator[bytes, None]) -> bytes:
        with trio.CancelScope(deadline=trio.current_time() + trio_seconds(self._seconds)):
            await self._mail.wait()
            return await parts.__anext__()
        slow = trio.TooSlowError()
        raise self._connection.wire.errors.read_timeout(slow) from slow

    async def _finish(self) -> None:
        self._connection.wire.forget(self._stream_id)
        with trio.CancelScope(shield=True):  # what httpcore counts must be right for the others' sake
            await super()._finish()

    async def _leave(self) -> None:
        self._hold.retire()
        self._connection.wire.forget(self._stream_id)
        try:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSING):
                if self._connection.leases > 1:
                    await self._drain()
                elif self._parts is not None:
                    await self._parts.aclose()
                await self._content.aclose()
        finally:
            self._hold.abandon()

    async def _fail(self, error: BaseException) -> None:
        self._connection.wire.forget(self._stream_id)
        if self._connection.survives(error):
            self._hold.end()
            return
        self._hold.retire()
        try:
            if self._connection.leases > 1:
                await self._connection.reset(self._stream_id)
        finally:
            self._hold.abandon()

    async def _drain(self) -> None:
        """Reset the stream, and read what is there of it: it counts against the window of all until it is read."""
        await self._connection.reset(self._stream_id)
        parts = self._parts
        if parts is None:
            parts = self._content.__aiter__()
        try:
            async for _ in parts:
                pass
        except (self._library.core.RemoteProtocolError, self._library.core.ReadError):
            return


def has_switched(method: bytes, status: int) -> bool:
    """Tell whether the connection has been given over to another protocol."""
    return status == SWITCHING_PROTOCOLS or (method == b"CONNECT" and 200 <= status < 300)  # noqa: PLR2004 - success
