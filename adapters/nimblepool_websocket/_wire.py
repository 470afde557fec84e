"""Writing to a connection: without the driver's detours, never behind half a frame, and not for ever."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

import trio
from websockets.protocol import CLOSED, OPEN

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Coroutine, Iterable

    from websockets.trio.client import ClientConnection
    from websockets.typing import DataLike

    Message: TypeAlias = DataLike | Iterable[DataLike] | AsyncIterable[DataLike]

PLAIN: Final = (str, bytes)
PIECE: Final = 65_536
"""Bytes that are handed to the network at a time: a slow server is told from one that does not read by these."""


@final
class Wire:
    """How one connection is written to.

    Attributes:
        is_cut: whether a write ended in the middle, so that the server would take whatever follows for the rest of it;
            or failed.
        ending: set once the connection is about to end, and not by the client's own ``aclose``.

    Invariants:
        ending is set if is_cut
        while is_cut, nothing is written
        _pieces counts what was begun to be handed to the network
        _quiet is not None if and only if nobody looks at _pieces, because nothing was written lately
    """

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.is_cut = False
        self.ending = trio.Event()
        self._pieces = 0
        self._quiet: trio.Event | None = None

    def cut(self) -> None:
        """See that nothing more is written."""
        self.is_cut = True
        self.ending.set()

    def send(self, message: Message, *, text: bool | None) -> Coroutine[Any, Any, None]:
        """Send a message as the driver does; a whole one, if nothing is in the way, without its detours.

        These are a context for all that can happen to a connection, and a lock that is a checkpoint even when it is
        free. Together they cost as much as writing to the network does. For the same reason this is a plain function.

        Raises:
            ConnectionClosed: the connection is closed, or was lost meanwhile.
            TypeError: the message is of a type that cannot be sent.
        """
        connection = self._connection
        is_free = connection.send_in_progress is None and not connection.send_lock.locked()
        if not isinstance(message, PLAIN) or not is_free or connection.protocol.state is not OPEN:
            return connection.send(message, text=text)
        if isinstance(message, str):
            return self._send_now(message.encode(), is_text=text is not False)
        return self._send_now(message, is_text=text is True)

    async def flush(self) -> None:
        """Write what the protocol has to say, once nobody else writes.

        Raises:
            trio.BrokenResourceError: a write has failed or was cut short; perhaps one that had taken our frames along.
            trio.ClosedResourceError: the connection was closed.
        """
        async with self._connection.send_lock:
            frames = self._connection.protocol.data_to_send()
            if self.is_cut or self._connection.protocol.state is CLOSED:
                raise trio.BrokenResourceError("the connection has ended, or a write was cut short")
            await self._write(frames)

    async def stalled(self, patience: float) -> None:
        """Return once a write has got on by no piece for ``patience`` seconds, and for less than twice of that.

        A timer runs only for a while after something was written.
        """
        while True:
            self._quiet = trio.Event()
            await self._quiet.wait()
            seen = -1
            while seen != self._pieces:
                seen = self._pieces
                await trio.sleep(patience)
            if self._connection.send_lock.locked():
                return

    async def _send_now(self, data: bytes, *, is_text: bool) -> None:
        connection = self._connection
        protocol = connection.protocol
        connection.send_lock.acquire_nowait()
        try:
            if is_text:
                protocol.send_text(data)
            else:
                protocol.send_binary(data)
            for frame in protocol.data_to_send():
                if len(frame) > PIECE:
                    await self._write_long(frame)
                else:
                    self._begin()
                    await connection.stream.send_all(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.cut()
            connection.set_connection_exc(error)
            await connection.close_stream()
            raise connection.close_exc from connection.connection_exc
        except BaseException:
            self.cut()
            raise
        finally:
            connection.send_lock.release()

    async def _write(self, frames: list[bytes]) -> None:
        try:
            for frame in frames:
                if frame:
                    await self._write_long(frame)
                else:
                    await self._end()
        except BaseException:
            self.cut()
            raise

    async def _write_long(self, frame: bytes) -> None:
        view = memoryview(frame)
        for start in range(0, len(frame), PIECE):
            self._begin()
            await self._connection.stream.send_all(view[start : start + PIECE])

    async def _end(self) -> None:
        """Tell the server that nothing more comes: in TLS only the end of the connection can say it."""
        stream = self._connection.stream
        with suppress(Exception):
            await (stream.send_eof() if isinstance(stream, trio.abc.HalfCloseableStream) else stream.aclose())

    def _begin(self) -> None:
        self._pieces += 1
        if self._quiet is not None:
            self._quiet.set()
            self._quiet = None
