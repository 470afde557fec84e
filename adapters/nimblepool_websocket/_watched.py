"""The driver's connection with what a pool needs besides: to hear of its end at once, to send many messages in one go.

This is the one place that relies on how the driver works inside; it is what its option ``create_connection`` is for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import trio
from websockets.frames import CLOSE, Frame

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from websockets.protocol import Event
    from websockets.trio.client import ClientConnection


def watched(base: type[ClientConnection]) -> type[ClientConnection]:
    """Return ``base`` with what `server_closes` and `send_many` need."""

    class WatchedConnection(base):  # type: ignore[valid-type, misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - the driver's own
            self.server_closes = trio.Event()
            super().__init__(*args, **kwargs)

        def process_event(self, event: Event) -> None:
            super().process_event(event)
            if isinstance(event, Frame) and event.opcode is CLOSE:
                self.server_closes.set()

    return WatchedConnection


def server_closes(connection: ClientConnection) -> trio.Event:
    """Return what is set when the server has sent a close frame.

    The driver wakes nobody before the server has also closed the TCP connection, which a broken one never does.
    """
    return cast("trio.Event", cast("Any", connection).server_closes)


def unread_frames(connection: ClientConnection) -> Collection[Frame]:
    """Return where the connection keeps, as long as it lives, the frames that nobody has received.

    The driver itself looks there: the channel's own statistics cost as much as a third of a lease.
    """
    channel: Any = connection.recv_messages.recv_frames
    frames: Collection[Frame] = channel._state.data  # noqa: SLF001 - see above
    return frames


async def send_many(connection: ClientConnection, messages: Iterable[tuple[bytes, bool]]) -> None:
    """Send each message, of which the flag says whether it is text, as a frame of its own; all in one system call.

    Raises:
        ConnectionClosed: the connection is closed, or was lost meanwhile.
    """
    protocol = connection.protocol
    async with connection.send_context():
        for data, is_text in messages:
            if is_text:
                protocol.send_text(data)
            else:
                protocol.send_binary(data)
        frames = b"".join(protocol.data_to_send())
        protocol.writes.append(frames)
