"""The driver's connection with what a pool needs besides: to hear of its end at once, to send many messages in one go.

This and `_wire` are the places that rely on how the driver works inside; it is what its option ``create_connection`` is
for.
"""

from __future__ import annotations

from contextlib import suppress
from inspect import GEN_RUNNING, getgeneratorstate
from typing import TYPE_CHECKING, Any, Final, cast

import trio
from websockets.frames import CLOSE, Frame
from websockets.trio.client import ClientConnection

from ._wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from types import GeneratorType

    from websockets.protocol import Event, Protocol

BREACH: Final = cast("Event", object())
"""What stands among the protocol's events where the server has broken the rules."""


class Watching(ClientConnection):
    """A connection with what the functions below need.

    Its tasks are protected from Ctrl-C. Trio raises that in any task that is not, these run under a task of trio's own,
    and one of those that fails is an internal error of trio's.

    Attributes:
        wire: how it is written to.
        on_full: called when so much is unread that reading pauses.

    Invariants:
        _reading is the task of the driver's reader, once that has begun
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - the driver's own
        self.wire = Wire(self)
        self.on_full: Callable[[], object] = _nobody
        self._reading: trio.lowlevel.Task | None = None
        super().__init__(*args, **kwargs)
        _tell_of_failures(self.protocol, self.wire)

    def process_event(self, event: Event) -> None:
        if event is BREACH:
            self.wire.ending.set()
            return
        super().process_event(event)
        # The driver wakes nobody before the server has also closed the TCP connection, which a broken one never does.
        if isinstance(event, Frame) and event.opcode is CLOSE:
            self.wire.ending.set()

    async def send_data(self) -> None:
        # The driver's reader calls this after each read, nearly always with nothing to send. Then it would wait for a
        # send that waits for the server to read, and the server may wait for us to read: for ever.
        if not self.protocol.writes:
            return
        if trio.lowlevel.current_task() is not self._reading:
            await self.wire.flush()
            return
        # An error here is none of the reader's: it goes on to the end of what the server has sent.
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self.wire.flush()

    def pause_reading(self) -> None:
        super().pause_reading()
        self.on_full()

    async def close_stream(self) -> None:
        try:
            await super().close_stream()
        finally:
            self.wire.ending.set()

    @trio.lowlevel.enable_ki_protection
    async def recv_events(self) -> None:
        self._reading = trio.lowlevel.current_task()
        await super().recv_events()

    @trio.lowlevel.enable_ki_protection
    async def keepalive(self) -> None:
        await super().keepalive()


def watched(base: type[ClientConnection]) -> type[ClientConnection]:
    """Return ``base``, the driver's class or the user's, with what the functions below need."""
    return type(f"Watching{base.__name__}", (Watching, base), {})


def wire_of(connection: ClientConnection) -> Wire:
    """Return how the connection is written to."""
    return cast("Watching", connection).wire


def when_full(connection: ClientConnection, call: Callable[[], object]) -> None:
    """Have ``call`` called whenever so much is unread that the driver stops to read, and so to hear of a close."""
    cast("Watching", connection).on_full = call


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


def _nobody() -> None:
    """Hear of nothing."""


def _tell_of_failures(protocol: Protocol, wire: Wire) -> None:
    """Have ``wire`` hear when either side breaks the protocol off; of a breach behind what came before it."""
    fail = protocol.fail

    def fail_and_tell(code: int, reason: str = "") -> None:
        parser = cast("GeneratorType[None, None, None]", protocol.parser)
        is_reading = getgeneratorstate(parser) == GEN_RUNNING
        fail(code, reason)
        if is_reading:
            protocol.events.append(BREACH)
        else:
            wire.ending.set()

    protocol.fail = fail_and_tell  # type: ignore[method-assign]
