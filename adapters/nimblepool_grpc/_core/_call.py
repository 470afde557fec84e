"""One RPC.

It is one long class, because its four beginnings, its messages and its end share one state, and each of its methods is
a few lines: what is general about waiting for the core is in `_batch`, and what carries it out in `_reactor`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Protocol, final

import grpc
import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, enable_ki_protection

from ._batch import pass_by
from ._cygrpc import cygrpc
from ._errors import CallEnded
from ._metadata import check_metadata
from ._status import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._batch import Batch
    from ._cygrpc import Operation, ReceiveInitialMetadata, ReceiveMessage, ReceiveStatus, StartedCall
    from ._metadata import Metadata
    from ._reactor import Reactor

__all__ = ["CoreCall"]

_logger = logging.getLogger("nimblepool")
_CANCELLED: Final = "the task that waited for it was cancelled"
_CLOSED: Final = "the channel is closed"
_CLOSE: Final = cygrpc.SendCloseFromClientOperation(0)  # has no state, so one serves all
_OK: Final = grpc.StatusCode.OK


class _Home(Protocol):
    """The channel of a call."""

    closed: bool
    running: set[CoreCall]


@final
class CoreCall:
    """One RPC, of any of the four kinds: whichever method starts it decides. Made by `CoreChannel.call`.

    One task may receive and one may send at a time; both together are allowed. A task that is cancelled in
    `unary_unary`, `receive`, `send`, `half_close` or `response` cancels the RPC, and waits until the core has let go
    of it (no network is involved: well under a millisecond) before the cancellation goes on. One that is cancelled in
    `status`, `initial_metadata` or `connected` just stops waiting.

    It is used in the trio run that made it: elsewhere, what has to wait or to end it raises RuntimeError.

    Invariants:
        it is in home.running from its start until status_now is set, which is once
        _receiving, _sending, _responding are the batch that a task waits for, or will, if there is any
        _call is None once nothing more can be asked of it, for it keeps a closed channel's connection
        _exhausted if and only if there is nothing to receive any more
        _incoming, _initial, _final are what the core puts a message, the server's metadata and the end into
        _callbacks is None once status_now is set
    """

    __slots__ = (
        "__weakref__",
        "_call",
        "_callbacks",
        "_connected",
        "_end",
        "_exhausted",
        "_final",
        "_flags",
        "_half_closed",
        "_home",
        "_incoming",
        "_initial",
        "_initial_here",
        "_reactor",
        "_receiving",
        "_responding",
        "_sending",
        "initial_metadata_now",
        "is_cancelled",
        "status_now",
    )

    _incoming: ReceiveMessage
    _initial: ReceiveInitialMetadata
    _final: ReceiveStatus

    def __init__(self, home: _Home, reactor: Reactor, call: StartedCall, flags: int) -> None:
        self.status_now: Status | None = None
        """How the RPC ended, or None while it runs."""
        self.initial_metadata_now: Metadata | None = None
        """The server's initial metadata, or None if it is not here yet."""
        self.is_cancelled = False
        """Whether it was `cancel` that ended the RPC, here and not at the server."""
        self._home = home
        self._reactor = reactor
        self._call: StartedCall | None = call
        self._flags = flags
        self._receiving: Batch | None = None
        self._exhausted = False
        self._sending: Batch | None = None
        self._half_closed = False
        self._responding: Batch | None = None
        self._callbacks: list[Callable[[], object]] | None = None
        self._connected: trio.Event | None = None
        self._initial_here: trio.Event | None = None
        self._end: trio.Event | None = None

    # The beginning.

    async def unary_unary(self, request: bytes, metadata: Metadata) -> bytes | None:
        """Send ``request`` and return the response, or None if the RPC failed: see `status_now` then.

        Raises:
            TypeError: ``request`` is not bytes, or ``metadata`` no tuple of pairs.
            ValueError: ``metadata`` has a key or value that gRPC does not allow.
        """
        await checkpoint_if_cancelled()
        self._initial = cygrpc.ReceiveInitialMetadataOperation(0)
        self._incoming = cygrpc.ReceiveMessageOperation(0)
        self._final = cygrpc.ReceiveStatusOnClientOperation(0)
        operations = (
            cygrpc.SendInitialMetadataOperation(metadata, self._flags),
            cygrpc.SendMessageOperation(request, 0),
            _CLOSE,
            self._initial,
            self._incoming,
            self._final,
        )
        if not self._start(metadata):
            return None
        self._exhausted = True
        await self._begin(operations, self._on_all).wait(self, "waiting for the response")
        return self._single_response()

    def start_unary_stream(self, request: bytes, metadata: Metadata) -> None:
        """Start an RPC with one request and a stream of responses; raises like `unary_unary`."""
        sent = (
            cygrpc.SendInitialMetadataOperation(metadata, self._flags),
            cygrpc.SendMessageOperation(request, 0),
            _CLOSE,
        )
        if self._start(metadata):
            self._begin(sent, self._on_connected)
            self._half_closed = True
            self._expect_initial_metadata()
            self._expect_end()

    def start_stream_unary(self, metadata: Metadata) -> None:
        """Start an RPC with a stream of requests and one `response`; raises like `unary_unary`."""
        if self._start(metadata):
            self._exhausted = True
            self._begin((cygrpc.SendInitialMetadataOperation(metadata, self._flags),), self._on_connected)
            self._expect_initial_metadata()
            self._incoming = cygrpc.ReceiveMessageOperation(0)
            self._final = cygrpc.ReceiveStatusOnClientOperation(0)
            self._responding = self._begin((self._incoming, self._final), self._on_end)

    def start_stream_stream(self, metadata: Metadata) -> None:
        """Start an RPC with streams both ways; raises like `unary_unary`."""
        if self._start(metadata):
            self._begin((cygrpc.SendInitialMetadataOperation(metadata, self._flags),), self._on_connected)
            self._expect_initial_metadata()
            self._expect_end()

    def _start(self, metadata: Metadata) -> bool:
        """Tell whether there is anything to start, still."""
        if metadata:
            check_metadata(metadata)
        if self._home.closed:
            self.cancel(_CLOSED)
        if self.status_now is not None:
            return False
        self._home.running.add(self)
        return True

    @enable_ki_protection
    def _begin(self, operations: tuple[Operation, ...], then: Callable[[], None] | None) -> Batch:
        assert self._call is not None, "bug: the RPC has ended"
        try:
            return self._reactor.begin(cygrpc.execute_batch(self._call, operations, self._reactor), then)
        except BaseException as error:
            self.cancel(f"it could not go on: {error}")
            if not isinstance(error, cygrpc.ExecuteBatchError):
                raise
            raise RuntimeError(f"bug: the core refused a batch: {error}") from None

    def _expect_initial_metadata(self) -> None:
        self._initial = cygrpc.ReceiveInitialMetadataOperation(0)
        self._begin((self._initial,), self._on_initial_metadata)

    def _expect_end(self) -> None:
        self._final = cygrpc.ReceiveStatusOnClientOperation(0)
        self._begin((self._final,), self._on_end)

    # Messages.

    async def receive(self) -> bytes | None:
        """Return the next message, or None when there is none any more: `status` tells whether all is well.

        The one after it is asked of the core at once, which makes a stream faster, and holds one message more.

        Raises:
            trio.BusyResourceError: another task is receiving.
        """
        if self._exhausted:
            await pass_by(self)
            return None
        self._reactor.check()
        batch = self._receiving or self._fetch()
        await batch.wait(self, "receiving")
        message = self._incoming.message()
        if message is None or self.is_cancelled:
            self._exhausted = True
            self._let_go()
            return None
        self._fetch()
        return message

    def _fetch(self) -> Batch:
        self._incoming = cygrpc.ReceiveMessageOperation(0)
        self._receiving = self._begin((self._incoming,), None)
        return self._receiving

    async def send(self, message: bytes) -> None:
        """Send ``message``, waiting until the core has taken it, which is back-pressure.

        Raises:
            CallEnded: the RPC has ended.
            RuntimeError: after `half_close`.
            trio.BusyResourceError: another task is sending.
        """
        if self._half_closed:
            raise RuntimeError("half_close() was called: nothing can be sent any more")
        if self.status_now is not None:
            raise CallEnded
        if not await self._send(cygrpc.SendMessageOperation(message, 0)):
            raise CallEnded

    async def half_close(self) -> None:
        """Tell the server that no request follows; idempotent, and harmless when the RPC has ended.

        Raises:
            trio.BusyResourceError: another task is sending.
        """
        if self._half_closed or self.status_now is not None:
            await pass_by(self)
        else:
            await self._send(_CLOSE)

    @enable_ki_protection
    async def _send(self, operation: Operation) -> bool:
        """Tell whether the core has taken it."""
        self._reactor.check()
        if self._sending is not None:
            raise trio.BusyResourceError("another task is already sending")
        self._half_closed = operation is _CLOSE
        self._sending = batch = self._begin((operation,), None)
        try:
            await batch.wait(self, "sending")
        finally:
            self._sending = None
        return not batch.failed

    async def response(self) -> bytes | None:
        """Wait for the response of a stream-unary RPC; None if it failed: see `status_now` then.

        Raises:
            trio.BusyResourceError: another task is waiting for it.
        """
        if self._responding is None:
            await pass_by(self)  # it was cancelled before it began
            return None
        self._reactor.check()
        await self._responding.wait(self, "waiting for the response")
        return self._single_response()

    def _single_response(self) -> bytes | None:
        assert self.status_now is not None, "bug: the batch with the status has ended, and there is none"
        return self._incoming.message() if self.status_now.code is _OK else None

    # What else there is to know.

    async def connected(self) -> None:
        """Wait until the RPC's metadata, and a single request, have been sent, or the RPC has ended."""
        if self.status_now is None:
            self._reactor.check()
        if self._connected is None:
            self._connected = trio.Event()
            if self.status_now is not None or self.initial_metadata_now is not None:
                self._connected.set()
        await self._connected.wait()

    async def initial_metadata(self) -> Metadata:
        """Wait for the server's initial metadata; empty if the RPC ended without."""
        if self.initial_metadata_now is None:
            self._reactor.check()
            if self._initial_here is None:
                self._initial_here = trio.Event()
            await self._initial_here.wait()
        else:
            await checkpoint()
        assert self.initial_metadata_now is not None, "bug: woken without initial metadata"
        return self.initial_metadata_now

    async def status(self) -> Status:
        """Wait for the end of the RPC. After a None from `receive` it comes without waiting on the network."""
        if self.status_now is None:
            self._reactor.check()
            if self._end is None:
                self._end = trio.Event()
            await self._end.wait()
        else:
            await checkpoint()
        assert self.status_now is not None, "bug: woken without a status"
        return self.status_now

    @property
    def done(self) -> bool:
        """Whether the RPC has ended."""
        return self.status_now is not None

    # The end.

    @enable_ki_protection
    def cancel(self, details: str) -> bool:
        """End the RPC with CANCELLED and ``details``, here and at the server; tell whether it was still running.

        `status_now` is set when this returns, and the done callbacks have run.

        Raises:
            RuntimeError: it runs, and this is another trio run than its own.
        """
        if self.status_now is not None:
            return False
        self._reactor.check()
        assert self._call is not None, "bug: let go of before the end"
        self._call.cancel(details)
        self.is_cancelled = True
        self._exhausted = True
        if self.initial_metadata_now is None:
            self._know_initial_metadata(())
        self._finish(Status(grpc.StatusCode.CANCELLED, details, (), ""))
        return True

    def abandon(self) -> None:
        """Cancel it on behalf of a task that was cancelled while it waited."""
        self.cancel(_CANCELLED)

    def add_done_callback(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` once when the RPC ends, synchronously: at once if it has ended.

        What it raises is logged, SystemExit as well: it would come out of whatever happens to end the RPC.
        """
        if self.status_now is not None:
            _call_back(callback)
        elif self._callbacks is None:
            self._callbacks = [callback]
        else:
            self._callbacks.append(callback)

    def _on_connected(self) -> None:
        if self._connected is None:
            self._connected = trio.Event()
        self._connected.set()

    def _on_initial_metadata(self) -> None:
        if self.initial_metadata_now is None:
            self._know_initial_metadata(self._initial.initial_metadata())

    def _on_all(self) -> None:
        if self.status_now is None:
            self._know_initial_metadata(self._initial.initial_metadata())
            self._finish(Status.received(self._final))

    def _on_end(self) -> None:
        if self.status_now is None:
            self._finish(Status.received(self._final))

    def _know_initial_metadata(self, metadata: Metadata) -> None:
        self.initial_metadata_now = metadata
        if self._initial_here is not None:
            self._initial_here.set()

    def _finish(self, status: Status) -> None:
        self.status_now = status
        self._let_go()
        self._home.running.discard(self)
        if self._connected is not None:
            self._connected.set()
        if self._end is not None:
            self._end.set()
        if self._callbacks is not None:
            callbacks, self._callbacks = self._callbacks, None
            for callback in callbacks:
                _call_back(callback)

    def _let_go(self) -> None:
        if self._exhausted and self.status_now is not None:
            self._call = None


def _call_back(callback: Callable[[], object]) -> None:
    try:
        callback()
    except BaseException:
        _logger.exception("a done callback of an RPC failed")
