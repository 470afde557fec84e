"""The core's events, in a trio run.

grpcio's core completes everything in threads of its own; one more thread of cygrpc's, the poller, puts each completed
batch into a queue and writes a byte to a socket. Whoever runs an event loop is to read that socket and to empty the
queue: what belongs to its own loop it completes, what belongs to another's it hands over by `call_soon_threadsafe`.
There is one socket for the process, and cygrpc never forgets a loop that was bound to it.
"""

from __future__ import annotations

import logging
import socket
from threading import Lock
from typing import TYPE_CHECKING, Final, Protocol, TypeVarTuple, final

import trio
from trio.lowlevel import (
    RunVar,
    TrioToken,
    current_trio_token,
    enable_ki_protection,
    spawn_system_task,
    wait_readable,
)

from ._batch import Batch
from ._cygrpc import cygrpc
from ._running import running

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["Reactor"]

Args = TypeVarTuple("Args")

_logger = logging.getLogger("nimblepool")
_FAREWELL: Final = 1.0
"""How long the end of a run waits for the core to let go of its batches, in seconds; 1 ms is usual."""
_MANY: Final = 1 << 16


class _Closable(Protocol):
    def close(self) -> None: ...


@final
class Reactor:
    """Stands in for an asyncio loop towards cygrpc, for one trio run after the other.

    Invariants:
        begun >= ended; the difference is the batches that the core still holds pointers to
        watches of them are watches of channels, which end by themselves
        channels lists those that are open, all of the current run
        _token is that of the current run, or of the last one
        _socket is None if and only if _handle_events is: cygrpc then has its own thread do what `_read` does
        _farewell is not None only while the end of the run waits for batches
    """

    def __init__(self) -> None:
        self.channels: set[_Closable] = set()
        self.begun = 0
        self.ended = 0
        self.watches = 0
        self._crowded = False
        self._token: TrioToken | None = None
        self._socket: socket.socket | None = None
        self._handle_events: Callable[[], object] | None = None
        self._farewell: trio.CancelScope | None = None
        # The reference is never given back: the last one to go would close the socket under whoever reads it.
        with running(self):
            cygrpc.init_grpc_aio()

    @staticmethod
    def current() -> Reactor:
        """Return the one of this trio run.

        Raises:
            RuntimeError: outside of a trio run.
        """
        reactor = _current.get(None)
        if reactor is None:
            token = current_trio_token()
            reactor = _take_idle() or Reactor()
            reactor.join(token)
            _current.set(reactor)
        return reactor

    def join(self, token: TrioToken) -> None:
        """Serve the run of ``token``, which is this one, until it ends."""
        self._token = token
        spawn_system_task(self._serve, name="nimblepool_grpc reactor")

    def check(self) -> None:
        """Refuse to serve any other run: the tasks that wait are of this one, and nothing else may wake them.

        Raises:
            RuntimeError: this is another run, or none.
        """
        try:
            is_here = current_trio_token() is self._token
        except RuntimeError:
            is_here = False
        if not is_here:
            raise RuntimeError("this RPC belongs to another thread or run: go through trio.from_thread.run_sync")

    # A batch that an interrupt kept from being noted would never end.
    @enable_ki_protection
    def begin(self, waiting: Coroutine[object, object, object], then: Callable[[], None] | None = None) -> Batch:
        """Give the core what ``waiting``, one of cygrpc's coroutines, is about; ``then`` is called at its end."""
        steps = waiting.__await__()
        batch = next(steps)
        assert isinstance(batch, Batch), "bug: cygrpc awaits something of its own"
        batch.begin(steps, then)
        self.begun += 1
        return batch

    # What cygrpc calls of a loop.

    def create_future(self) -> Batch:
        """Make what cygrpc's coroutine awaits."""
        return Batch(self)

    def add_reader(self, reader: socket.socket, callback: Callable[[], object]) -> None:
        """Take the poller's socket, and what handles its events; called once, when this is bound to the poller."""
        self._socket = reader
        self._handle_events = callback

    def remove_reader(self, reader: socket.socket) -> None:
        """Let go of the socket; never called, as the poller stays."""

    def call_soon_threadsafe(self, callback: Callable[[*Args], object], *args: *Args) -> None:
        """Complete a batch that another thread has taken out of the queue."""
        assert self._token is not None, "bug: a batch began outside of a run"
        try:
            self._token.run_sync_soon(self._complete, callback, *args)
        except trio.RunFinishedError:
            callback(*args)  # nobody waits for it any more, but its memory is to be freed

    def _complete(self, callback: Callable[[*Args], object], *args: *Args) -> None:
        callback(*args)
        if self._farewell is not None and not self._is_owed:
            self._farewell.cancel()

    @property
    def _is_owed(self) -> bool:
        """Whether the core holds anything that ends soon."""
        return self.begun - self.ended > self.watches

    # The reader.

    async def _serve(self) -> None:
        try:
            while True:
                await self._next_events()
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await self._bid_farewell()
            raise

    async def _next_events(self) -> None:
        if self._socket is None:
            # Some asyncio loop here could not watch a socket, so that cygrpc hands over everything.
            await trio.sleep_forever()
        else:
            await wait_readable(self._socket)
            self._read()

    def _read(self) -> None:
        """Complete the batches in the queue.

        The handler takes one byte, however many events there are; the others would wake the run for nothing. Where
        many end at a time, all bytes but one are taken before. The last is for the handler, which before grpcio 1.80
        does nothing without one, so only one thread at a time may do that: two could leave one another nothing.
        """
        before = self.ended
        if self._crowded and _draining.acquire(blocking=False):
            try:
                self._drop_bytes()
                self._handle()
            finally:
                _draining.release()
        else:
            self._handle()
        self._crowded = self.ended - before > 1

    def _drop_bytes(self) -> None:
        assert self._socket is not None, "bug: not bound"
        try:
            count = len(self._socket.recv(_MANY, socket.MSG_PEEK))
            if count > 1:
                self._socket.recv(count - 1)
        except BlockingIOError:
            pass  # another thread was faster

    def _handle(self) -> None:
        assert self._handle_events is not None, "bug: not bound"
        while True:
            try:
                self._handle_events()
            except BlockingIOError:  # before grpcio 1.80: the byte went to another thread, and its event with it
                return
            except Exception:
                # An event of a loop in another thread that is closed. It is out of the queue; the next ones are not.
                _logger.debug("an event of another loop was lost", exc_info=True)
            else:
                return

    async def _bid_farewell(self) -> None:
        """End what still runs and wait until it has let go of the core; then serve another run."""
        for channel in list(self.channels):
            channel.close()
        with trio.move_on_after(_FAREWELL) as self._farewell:
            while self._is_owed:
                await self._next_events()
        self._farewell = None
        _current.set(None)
        _idle.append(self)


_current: RunVar[Reactor | None] = RunVar("nimblepool_grpc reactor", None)
_idle: list[Reactor] = []
"""Those whose run has ended: as many as trio ran at one time in threads."""
_draining = Lock()


def _take_idle() -> Reactor | None:
    try:
        return _idle.pop()
    except IndexError:
        return None
