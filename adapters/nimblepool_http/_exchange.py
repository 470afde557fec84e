"""One request over HTTP/2 until its answer begins: which stream it is, and how long the answer takes."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, final

import h2.exceptions
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ._foreign import Foreign
    from ._wire import Mail, Wire

_PIECE = 65_536


@final
class Exchange:
    """Changes a request so that httpcore tells of its stream, and leaves the read time-out to this object.

    httpcore's own ends every stream of the connection when nothing was read for one of them, and none while another
    one is being read. Here each answer has its own: from the last that was sent of the request to the headers, and
    from one part of the body to the next (`SharedBody`).

    It takes the place of the request's body, and hands that on in small pieces: each that is sent is a sign of life.

    Args:
        request: httpcore's, which is changed.
        wire: of its connection.
        prepared: called once httpcore has prepared the connection; only for its first request.
    """

    def __init__(self, request: Foreign, wire: Wire, *, prepared: Callable[[], object] | None) -> None:
        extensions = request.extensions
        timeouts: dict[str, float | None] = extensions.get("timeout") or {}
        self.stream_id: int | None = None
        self.mail: Mail | None = None
        self._wire = wire
        self._prepared = prepared
        self.patience = trio.CancelScope()
        self.seconds: float | None = timeouts.get("read")
        self._trace = extensions.get("trace")
        self._body = request.stream
        self._parts: AsyncIterator[bytes] | None = None
        self._part = b""
        request.extensions = {**extensions, "timeout": {**timeouts, "read": None}, "trace": self._note}
        request.stream = self
        # httpcore's preparations may not be cut short: they happen once for a connection, and are not undone.
        self.patience.shield = prepared is not None
        if prepared is None:
            self._wait_anew()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        parts = self._parts
        if parts is None:
            parts = self._parts = aiter(self._body)
        while not self._part:
            self._part = await anext(parts)
        piece, self._part = self._part[:_PIECE], self._part[_PIECE:]
        self._wait_anew()
        return piece

    async def close(self) -> None:
        """End a body of which not everything was asked for; the error that it is for is more than one of its own."""
        close = getattr(self._parts, "aclose", None)
        if close is not None:
            with suppress(Exception):
                await close()

    def _wait_anew(self) -> None:
        if self.seconds is not None:
            self.patience.deadline = trio.current_time() + self.seconds

    async def _note(self, event: str, info: dict[str, Any]) -> None:
        if event == "http2.send_connection_init.complete" and self._prepared is not None:
            self._prepared()
        if self._trace is not None:
            await self._trace(event, info)
        if event == "http2.send_request_headers.started":
            self.patience.shield = False
            self._wait_anew()
            self.stream_id = info["stream_id"]
            self.mail = self._wire.expect(info["stream_id"])
        elif event == "http2.send_request_headers.failed" and isinstance(info["exception"], h2.exceptions.H2Error):
            self.forget()  # the stream was never begun, and the next one gets its number
        elif event == "http2.receive_response_headers.started" and self.mail is not None:
            self._wait_anew()
            if self._wire.is_read:  # else httpcore does not know yet how many streams there may be
                await self.mail.wait()

    def forget(self) -> None:
        """Expect no answer any more."""
        if self.stream_id is not None:
            self._wire.forget(self.stream_id)
            self.stream_id = None
