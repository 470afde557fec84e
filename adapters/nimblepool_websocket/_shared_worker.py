"""The pool's worker for sockets that many requests share."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from nimblepool import PoolWorker, Reason, Verdict

from ._exchange import Exchange

if TYPE_CHECKING:
    from ._correlate import Correlator
    from ._hub import Hub
    from ._socket import Socket
    from ._worker import WebSocketWorker


@final
class SharedSocket:
    """A socket and the exchange on it."""

    __slots__ = ("exchange", "socket")

    def __init__(self, socket: Socket, exchange: Exchange) -> None:
        self.socket = socket
        self.exchange = exchange

    def __repr__(self) -> str:
        return f"<SharedSocket, {self.exchange.in_flight} in flight, on {self.socket!r}>"


@final
class SharedWorker(PoolWorker[SharedSocket]):
    """Opens, judges and closes sockets on which ``max_in_flight`` leases at a time each send a request."""

    def __init__(self, worker: WebSocketWorker, correlator: Correlator, hub: Hub, max_in_flight: int) -> None:
        self._worker = worker
        self._correlator = correlator
        self._hub = hub
        self._max_in_flight = max_in_flight

    def __repr__(self) -> str:
        return f"SharedWorker({self._worker!r})"

    async def init(self) -> SharedSocket:
        socket = await self._worker.init()
        exchange = Exchange(socket, self._correlator, self._hub, self._worker.send_timeout)
        socket.serve(exchange.run)
        return SharedSocket(socket, exchange)

    async def stop(self) -> None:
        await self._worker.stop()

    async def terminate(self, resource: SharedSocket, reason: Reason) -> None:
        self._hub.socket_closed()
        await resource.socket.close()

    def checkout(self, resource: SharedSocket, request: object) -> Verdict:
        return Verdict.OK if resource.socket.is_alive else Verdict.REMOVE

    def checkin(self, resource: SharedSocket, error: BaseException | None) -> Verdict:
        # A request that failed or was cancelled has left nothing behind: the exchange saw to that.
        return Verdict.OK if resource.socket.is_alive else Verdict.REMOVE

    async def ping(self, resource: SharedSocket) -> None:
        await self._worker.ping(resource.socket)

    async def watch(self, resource: SharedSocket) -> None:
        await self._worker.watch(resource.socket)

    def capacity(self, resource: SharedSocket) -> int:
        return self._max_in_flight if resource.socket.is_alive else 0
