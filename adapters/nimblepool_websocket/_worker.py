"""The pool's worker for WebSocket connections that are lent to one client at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, final

import trio

from nimblepool import PoolWorker, Reason, Verdict

from ._check import check_callable, check_function, check_seconds
from ._failing import futile, judged
from ._options import Dialler
from ._socket import Socket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Unpack

    from ._failing import ProcessException
    from ._options import ConnectOptions, UriSource

    OnOpen: TypeAlias = Callable[[Socket], Awaitable[object]]
    Resync: TypeAlias = Callable[[Socket], Awaitable[object]]

ResyncWhen: TypeAlias = Literal["unclean", "always"]

OK: Final = Verdict.OK
"""For what every lease does: before Python 3.12 it takes long to look up a member of an enum."""


@final
class WebSocketWorker(PoolWorker[Socket]):
    """Opens, judges and closes sockets; for `open_websockets`, or alone for `nimblepool.open_pool`.

    A socket that dies while it rests is noticed at once and removed. One that comes back with something unread, in
    mid-message, from a body that failed or was cancelled, or after a receive that was cut short, is removed, unless
    ``resync`` can clean it.

    Args:
        uri: ``ws://host:port/path`` or ``wss://...``; or a function, async or not, that returns it, and is asked before
            each opening: for addresses that expire or move. Its time is part of the pool's ``init_timeout``, and what
            it raises counts as a failure to open.
        on_open: awaited with every new `Socket` before it is lent, also after a reconnect: to authenticate, to
            subscribe. It may send and receive. If it raises, or leaves a send cut short, the socket counts as one that
            could not be opened; `nimblepool.Fatal` says that trying again would not help. It has what is left of the
            pool's ``init_timeout``.
        resync: awaited with the `Socket` when a client left it unclean: it must receive what the server has still to
            send, and leave nothing unread; raising removes the socket. It has the pool's ``reset_timeout``. A socket on
            which a send was cut short is removed all the same.
        resync_when: ``"always"`` resyncs after every lease: for servers that may be in the middle of sending while
            nothing has arrived yet.
        process_exception: says of what the driver raised whether trying again is futile: then it returns an exception,
            which clients get at once even with ``on_open_failure="wait"``; otherwise ``None``. By default it decides as
            the driver's: network errors, timeouts and the status 500, 502, 503 and 504 may pass, all else is futile; so
            is a certificate that is not valid.
        send_timeout: seconds that a send may make no progress (a leased one at most twice that), because the server
            does not read; then the socket is closed. A send of the pool's own must be over by then.
        **options: those of `websockets.trio.client.connect`; see `ConnectOptions` for other defaults than there.

    Raises:
        ValueError: the URI or an option has a value that is not allowed; the text quotes neither URI nor proxy.
        TypeError: an option does not exist, or is of the wrong type.
    """

    def __init__(
        self,
        uri: UriSource,
        *,
        on_open: OnOpen | None = None,
        resync: Resync | None = None,
        resync_when: ResyncWhen = "unclean",
        process_exception: ProcessException = futile,
        send_timeout: float = 10.0,
        **options: Unpack[ConnectOptions],
    ) -> None:
        check_callable("on_open", on_open)
        check_callable("resync", resync)
        check_seconds("send_timeout", send_timeout)
        _check_when(resync_when, resync)
        check_function("process_exception", process_exception)
        self._dialler = Dialler(uri, options)
        self._on_open = on_open
        self._resync = resync
        self._process_exception = process_exception
        self._verdict_on_clean = Verdict.RESET if resync_when == "always" else OK
        self._leaving: set[Socket] = set()
        self.send_timeout = send_timeout

    def __repr__(self) -> str:
        return f"WebSocketWorker({self._dialler.where})"

    def pool_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``given`` with timeouts that leave room for the driver's own, if it has none."""
        return {**self._dialler.pool_timeouts, **given}

    async def init(self) -> Socket:
        socket = Socket(await self._dialler.dial(), self.send_timeout)
        try:
            await socket.open()
        except Exception as error:
            verdict = judged(error, self._process_exception)
            if verdict is error:
                raise
            raise verdict from None
        try:
            if self._on_open is not None:
                await self._on_open(socket)
            socket.settle("on_open")
        except BaseException:
            self._see_off(socket)
            raise
        return socket

    async def stop(self) -> None:
        async with trio.open_nursery() as nursery:
            while self._leaving:
                nursery.start_soon(self._leaving.pop().close)

    async def terminate(self, resource: Socket, reason: Reason) -> None:
        await resource.close()

    def checkout(self, resource: Socket, request: object) -> Verdict:
        resource.rests = False
        if resource.is_clean:
            return OK
        if not resource.is_usable:
            return Verdict.REMOVE
        # What a server says by way of greeting is for the first client.
        return OK if resource.is_new else self._unclean

    def checkin(self, resource: Socket, error: BaseException | None) -> Verdict:
        resource.take_back()
        if error is None and resource.is_clean:
            return self._verdict_on_clean
        return self._unclean if resource.is_usable else Verdict.REMOVE

    async def reset(self, resource: Socket) -> None:
        resource.rests = False
        if self._resync is not None:
            await self._resync(resource)
        resource.settle("resync")
        if resource.has_unread:
            raise ValueError("resync left something unread")

    async def ping(self, resource: Socket) -> None:
        pong = await resource.ping(ack_on_close=True)
        await pong.wait()
        if not resource.is_alive:
            raise resource.closed_error()

    async def watch(self, resource: Socket) -> None:
        await resource.wait_gone()
        raise resource.cause_of_death()

    @property
    def _unclean(self) -> Verdict:
        return Verdict.REMOVE if self._resync is None else Verdict.RESET

    def _see_off(self, socket: Socket) -> None:
        """Have the socket closed, and do not keep waiting who is to hear of the failure; `stop` waits."""
        socket.leave()
        self._leaving = {each for each in self._leaving if not each.is_over} | {socket}


def _check_when(when: object, resync: object) -> None:
    if when not in ("unclean", "always"):
        raise ValueError(f"resync_when must be 'unclean' or 'always', not {when!r}")
    if when == "always" and resync is None:
        raise ValueError("resync_when='always' needs a resync")
