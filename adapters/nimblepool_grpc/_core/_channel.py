"""One channel."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, final

import grpc
import trio
from trio.lowlevel import checkpoint

from ._call import CoreCall
from ._cygrpc import cygrpc
from ._errors import ChannelClosed
from ._reactor import Reactor
from ._running import get_running, running, set_running

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._batch import Batch

__all__ = ["CoreChannel"]

_STATES: Final[dict[int, grpc.ChannelConnectivity]] = {state.value[0]: state for state in grpc.ChannelConnectivity}
_NUMBERS: Final = {state: number for number, state in _STATES.items()}
_IDLE: Final = grpc.ChannelConnectivity.IDLE
_CONNECTING: Final = grpc.ChannelConnectivity.CONNECTING
_READY: Final = grpc.ChannelConnectivity.READY
_SHUTDOWN: Final = grpc.ChannelConnectivity.SHUTDOWN
_CLOSED: Final = "the channel was closed"
_TICK: Final = 2.0
"""How long the core watches a channel at a time, in seconds.

A watch cannot be cancelled; it ends when the channel is destroyed. But in newer grpcio (1.66 does, 1.56 does not) a
call that somebody keeps, though it has ended, puts that off: so a watch is kept short. All watches of a process end at
the same tick, which wakes the run once.
"""


_SETTLING: Final = 0.005
"""Seconds that a connection must have lasted, to be used.

A server that is being replaced may accept it and say GOAWAY at once. A call that came between would, one time in a
hundred, send the core into an endless loop: it retries on the connection that is gone, in the very thread that is to
take note of that, which may be the run's own.
"""


def _next_tick() -> float:
    return (time.time() // _TICK + 1) * _TICK


def _wait_flags(wait_for_ready: bool | None) -> int:
    flags = cygrpc.InitialMetadataFlags
    if wait_for_ready is None:
        return 0
    chosen = flags.wait_for_ready_explicitly_set | (flags.wait_for_ready if wait_for_ready else 0)
    return chosen & flags.used_mask


_FLAGS: Final = {choice: _wait_flags(choice) for choice in (None, False, True)}


@final
class CoreChannel:
    """One gRPC channel. Made, used and closed in one trio run, which closes it when it ends.

    Args:
        target: what to connect to, as gRPC names it: ``host:port``, ``dns:///...``, ``unix:...``.
        options: the channel arguments, passed on as they are.
        credentials: TLS and what goes with it; plain text if None.
        compression: what requests are compressed with, unless a call says otherwise.

    Raises:
        RuntimeError: outside of a trio run.

    Invariants:
        _watch is the core's watch for a change, or None if there is none; it ends with the channel at the latest
        _changed is not set; it is replaced when it is, which the end of a watch does
        _changes counts the watches that ended with a change
        running is empty once closed
    """

    def __init__(
        self,
        target: str,
        *,
        options: Sequence[tuple[str, object]] = (),
        credentials: grpc.ChannelCredentials | None = None,
        compression: grpc.Compression | None = None,
    ) -> None:
        self.target = target
        """What it connects to."""
        self.closed = False
        """Whether `close` was called."""
        self.running: set[CoreCall] = set()
        """The calls that have begun and not ended."""
        self._reactor = Reactor.current()
        self._secure = credentials is not None
        self._watch: Batch | None = None
        self._changes = 0
        self._changed = trio.Event()
        arguments = tuple(options)
        if compression is not None:
            arguments += (("grpc.default_compression_algorithm", _number(compression)),)
        with running(self._reactor):
            self._channel = cygrpc.AioChannel(target.encode(), arguments, _inner(credentials), self._reactor)
        self._reactor.channels.add(self)

    @property
    def state(self) -> grpc.ChannelConnectivity:
        """The connectivity now; SHUTDOWN once closed."""
        return _SHUTDOWN if self.closed else _STATES[self._channel.check_connectivity_state(False)]

    def connect(self) -> None:
        """Start connecting, if the channel is idle."""
        if not self.closed:
            self._channel.check_connectivity_state(True)

    async def connected(self) -> grpc.ChannelConnectivity:
        """Start connecting, if the channel is idle, and return what came of it.

        That is READY, if the connection has lasted for an instant; IDLE, if it has come and gone; TRANSIENT_FAILURE; or
        SHUTDOWN, once closed.
        """
        await checkpoint()
        before = self._changes
        while (state := self.state) is _CONNECTING or (state is _IDLE and self._changes == before):
            self._begin_watch(state, _next_tick())
            self.connect()  # after the watch, which thus sees it even if the channel is idle again soon
            await self._changed.wait()
        return state if self._changes == before else await self._settled()

    async def _settled(self) -> grpc.ChannelConnectivity:
        """Wait until the channel is not READY, or has been for long enough, by the core's clock; return the state."""
        end = time.time() + _SETTLING
        while (state := self.state) is _READY and time.time() < end:
            self._begin_watch(state, end)
            await self._changed.wait()
        return state

    async def wait_for_change(self, last: grpc.ChannelConnectivity) -> grpc.ChannelConnectivity:
        """Wait until the connectivity is not ``last``, and return it: SHUTDOWN once closed.

        A task that is cancelled here leaves nothing behind but a watch of the core's, which the next one uses.
        """
        await checkpoint()
        while (state := self.state) is last and not self.closed:
            self._begin_watch(state, _next_tick())
            await self._changed.wait()
        return state

    def _begin_watch(self, state: grpc.ChannelConnectivity, end: float) -> None:
        if self._watch is None:
            self._reactor.watches += 1
            watching = self._channel.watch_connectivity_state(_NUMBERS[state], end)
            self._watch = self._reactor.begin(watching, self._on_change)

    def _on_change(self) -> None:
        watch, self._watch = self._watch, None
        assert watch is not None, "bug: a watch ended that had not begun"
        self._changes += not watch.failed  # it fails at its end
        self._reactor.watches -= 1
        if not self.closed:
            self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def call(
        self,
        method: bytes,
        *,
        deadline: float | None = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
    ) -> CoreCall:
        """Make an RPC of ``method`` (``b"/package.Service/Method"``), which starts with its first operation.

        Args:
            method: the full name.
            deadline: when the RPC ends with DEADLINE_EXCEEDED at the latest, in seconds of `time.time`.
            credentials: what proves this call's right, only on channels with credentials.
            wait_for_ready: whether to wait for a connection instead of failing with UNAVAILABLE.

        Raises:
            ChannelClosed: the channel is closed.
            ValueError: ``credentials`` on a channel that has none.
        """
        if self.closed:
            raise ChannelClosed("the channel is closed: no call can begin on it")
        if credentials is not None and not self._secure:
            raise ValueError("call credentials need a channel with credentials: they would be sent in plain text")
        outer = get_running()  # not with `running`, which takes 1 us
        set_running(self._reactor)
        try:
            call = self._channel.call(method, deadline, credentials, None)
        finally:
            set_running(outer)
        return CoreCall(self, self._reactor, call, _FLAGS[wait_for_ready])

    def close(self) -> None:
        """Cancel the calls that run, and disconnect. Idempotent."""
        if self.closed:
            return
        self.closed = True
        for call in list(self.running):
            call.cancel(_CLOSED)
        self._channel.close()
        self._reactor.channels.discard(self)
        self._wake()


def _inner(credentials: grpc.ChannelCredentials | None) -> object:
    """Return what cygrpc knows of them."""
    inner: Any = credentials
    return None if inner is None else inner._credentials  # noqa: SLF001


def _number(compression: grpc.Compression) -> int:
    number: Any = compression.value
    return int(number)
