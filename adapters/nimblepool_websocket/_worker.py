"""The pool's worker for WebSocket connections that are lent to one client at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, final

from websockets.exceptions import InvalidProxy

from nimblepool import PoolWorker, Reason, Verdict

from ._check import check_callable, check_positive
from ._options import Dialler
from ._socket import MARGIN, Socket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Unpack

    from websockets.trio.client import ClientConnection

    from ._options import ConnectOptions

    OnOpen: TypeAlias = Callable[[ClientConnection], Awaitable[object]]
    Resync: TypeAlias = Callable[[ClientConnection], Awaitable[object]]

TERMINATE_TIMEOUT = 5.0
"""What any pool has by default."""


@final
class WebSocketWorker(PoolWorker[Socket]):
    """Opens, judges and closes sockets; for `open_websockets`, or alone for `nimblepool.open_pool`.

    A socket that dies while it rests is noticed at once and removed. One that comes back with something unread, in
    mid-message, or from a body that failed or was cancelled, is removed, unless ``resync`` can clean it.

    Args:
        uri: ``ws://host:port/path`` or ``wss://...``.
        on_open: awaited with every new connection before it is lent, also after a reconnect: to authenticate, to
            subscribe. It may send and receive. If it raises, the socket counts as one that could not be opened. It has
            what is left of the pool's ``init_timeout``.
        resync: awaited with the driver's connection when a client left it unclean: it must receive what the server has
            still to send, and leave nothing unread; raising removes the socket. It has the pool's ``reset_timeout``.
            A socket on which a send was cut short is removed all the same.
        send_timeout: seconds that a send of the pool's own, which no cancellation cuts short, may take; then the socket
            is removed.
        **options: those of `websockets.trio.client.connect`; see `ConnectOptions` for other defaults than there.

    Raises:
        ValueError: the URI or an option has a value that is not allowed; the text quotes neither URI nor proxy.
        TypeError: an option does not exist, or is of the wrong type.
    """

    def __init__(
        self,
        uri: str,
        *,
        on_open: OnOpen | None = None,
        resync: Resync | None = None,
        send_timeout: float = 10.0,
        **options: Unpack[ConnectOptions],
    ) -> None:
        check_callable("on_open", on_open)
        check_callable("resync", resync)
        check_positive("send_timeout", send_timeout)
        self._dialler = Dialler(uri, options)
        self._on_open = on_open
        self._resync = resync
        self.send_timeout = send_timeout

    def __repr__(self) -> str:
        return f"WebSocketWorker({self._dialler.where})"

    def pool_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``given`` with a ``terminate_timeout`` that leaves room for ``close_timeout``, if it has none."""
        close_timeout = self._dialler.close_timeout
        needed = TERMINATE_TIMEOUT if close_timeout is None else close_timeout + 2 * MARGIN
        return {"terminate_timeout": max(TERMINATE_TIMEOUT, needed), **given}

    async def init(self) -> Socket:
        socket = Socket(self._dialler)
        try:
            await socket.open()
        except InvalidProxy as error:
            # The environment's own text may hold a password.
            raise ValueError(f"the proxy that the environment names is not valid: {error.msg}") from None
        if self._on_open is not None:
            try:
                await self._on_open(socket.raw)
            except BaseException:
                await socket.close()
                raise
        return socket

    async def terminate(self, resource: Socket, reason: Reason) -> None:
        await resource.close()

    def checkout(self, resource: Socket, request: object) -> Verdict:
        if not resource.is_usable:
            return Verdict.REMOVE
        # What a server says by way of greeting is for the first client.
        return self._unclean if resource.has_unread and not resource.is_new else Verdict.OK

    def checkin(self, resource: Socket, error: BaseException | None) -> Verdict:
        resource.is_new = False
        if not resource.is_usable:
            return Verdict.REMOVE
        return self._unclean if error is not None or resource.has_unread else Verdict.OK

    async def reset(self, resource: Socket) -> None:
        if self._resync is not None:
            await self._resync(resource.raw)
        if resource.has_unread:
            raise ValueError("resync left something unread")

    async def ping(self, resource: Socket) -> None:
        pong = await resource.ping(ack_on_close=True)
        await pong.wait()
        if not resource.is_alive:
            raise resource.closed_error()

    async def watch(self, resource: Socket) -> None:
        await resource.wait_gone()
        raise resource.closed_error()

    @property
    def _unclean(self) -> Verdict:
        return Verdict.REMOVE if self._resync is None else Verdict.RESET
