"""The transport: a request gets a lease of a connection, and its response keeps it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Self

import trio

from nimblepool import CheckoutTimeout, PoolClosed, PoolOverloaded, PoolUnavailable

from ._body import has_switched
from ._hold import Hold
from ._options import plan
from ._origin import Origin, origin_of
from ._request import IDEMPOTENT, Once
from ._session import Session
from ._ticket import Ticket
from ._worker import SURPLUS, Census, ConnectionWorker, SharedConnectionWorker, Site

if TYPE_CHECKING:
    from types import TracebackType

    from nimblepool import KeyedPool, Pool, PoolStats

    from ._connection import Connection
    from ._foreign import Foreign
    from ._library import Library
    from ._options import ClientOptions, PoolingOptions

REFUSALS: Final = 2
"""How many times a request is sent anew that the peer has not processed."""
DEPARTURES: Final = 32
"""The same if the peer takes no more on that connection: it may do so after every few requests."""


class Transport:
    """What is common to the transports for httpx and for httpx2.

    Invariants:
        _session is None until the first use
        _closed is true from the beginning of `aclose` until it is entered again
    """

    def __init__(self, library: Library, options: ClientOptions, pooling: PoolingOptions) -> None:
        self._plan = plan(library, options, pooling)
        self._library = library
        self._session: Session | None = None
        self._closed = False
        self._workers: dict[Origin, ConnectionWorker] = {}
        self._census = Census(self._plan.most_idle, self._trim)

    async def _handle(self, request: Foreign) -> Foreign:
        """See ``handle_async_request`` of the transports."""
        library = self._library
        try:
            origin = origin_of(request.url, request.extensions.get("sni_hostname"))
        except ValueError as error:
            raise library.client.UnsupportedProtocol(str(error)) from None
        body = request.stream if type(request.stream) is library.client.ByteStream else Once(request.stream)
        before: list[bool] = []
        while True:
            sent = self._translated(request, body)
            hold = await self._lend(origin, Ticket(request.extensions))
            try:
                response = await hold.connection.send(sent)
            except BaseException as error:
                hold.end(keep=hold.connection.survives(error))
                if self._may_repeat(request.method, body, hold.connection, error, before):
                    before.append(hold.connection.is_unprocessed(error))
                    continue
                translation = library.translated(error)
                if translation is error:
                    raise
                raise translation from error
            return self._response(response, hold, sent)

    def _may_repeat(
        self, method: str, body: Foreign, connection: Connection, error: BaseException, before: list[bool]
    ) -> bool:
        """Tell whether a request that failed with ``error`` can be sent once more, on another connection.

        ``before`` has an entry for each attempt before this one: whether its peer had not processed it.
        """
        if not isinstance(error, self._library.core_errors) or (isinstance(body, Once) and body.was_read):
            return False
        if connection.is_unprocessed(error):
            return before.count(True) < (REFUSALS if connection.capacity else DEPARTURES)
        return (
            all(before) and method in IDEMPOTENT and isinstance(error, self._library.broken) and connection.was_stale()
        )

    def _response(self, response: Foreign, hold: Hold, request: Foreign) -> Foreign:
        library = self._library
        kind = library.shared_body if hold.connection.multiplexed else library.body
        if has_switched(request.method, response.status):
            stream = response.extensions["network_stream"]
            response.extensions["network_stream"] = library.upgraded(stream, hold)
        return library.client.Response(
            status_code=response.status,
            headers=response.headers,
            stream=kind(response, hold, library, request),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Close every connection, those in use too, and return when that is done; idempotent."""
        self._closed = True
        if self._session is None:
            await trio.lowlevel.checkpoint()
        else:
            await self._session.close()

    async def __aenter__(self) -> Self:
        self._closed = False
        await self._open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()

    @property
    def stats(self) -> dict[str, PoolStats]:
        """The figures of each origin that has a pool at present, by its URL; from any thread."""
        keyed = None if self._session is None else self._session.keyed
        return {} if keyed is None else {str(origin): stats for origin, stats in keyed.stats.snapshot().items()}

    async def warm_up(self, url: str, connections: int = 1) -> None:
        """Open connections to the origin of ``url`` before they are needed, and wait until so many are open.

        Args:
            url: whose scheme, host and port count.
            connections: how many.

        Raises:
            ValueError: there may not be as many.
            Exception: the client's ``ConnectError`` or ``ConnectTimeout``: one could not be opened.
        """
        origin = origin_of(self._library.client.URL(url), None)
        pool, _ = self._pool_of(await self._open(), origin)
        failure: BaseException | None = None
        try:
            await pool.wait_ready(connections)
        except PoolUnavailable as error:
            failure = self._library.connect_failed(error.__cause__)
        except PoolClosed as error:
            raise self._library.closed(str(error)) from error
        if failure is not None:
            raise failure

    def close_idle(self) -> None:
        """Close the connections that nobody uses."""
        self._tell_all("close")

    def _trim(self) -> None:
        if self._census.idle > self._census.most:  # mostly not: the connection was opened for a request, which has it
            self._tell_all(SURPLUS)

    def _tell_all(self, message: str) -> None:
        if self._session is not None and self._session.keyed is not None:
            for pool in self._session.keyed.pools():
                pool.broadcast(message)

    async def _open(self) -> KeyedPool[Origin, Connection]:
        if self._closed:
            raise self._library.closed("this transport is closed; make another, or enter it again")
        if self._session is None or self._session.has_ended:
            _insist_on_trio()
            self._session = Session(self._make_worker, self._plan.pool_options)
        return await self._session.opened()

    def _make_worker(self, origin: Origin) -> ConnectionWorker:
        versions = self._plan.setting_for(origin).versions
        shared = versions.may_be_shared(secure=origin.is_secure)
        kind = SharedConnectionWorker if shared else ConnectionWorker
        worker = self._workers[origin] = kind(
            Site(
                origin=origin,
                connector=self._plan.connector,
                versions=versions,
                census=self._census,
                changed=partial(self._recount, origin),
                left=self._forget,
            )
        )
        return worker

    def _forget(self, worker: ConnectionWorker) -> None:
        """Forget the worker of a pool that has left."""
        if self._workers.get(worker.site.origin) is worker:
            del self._workers[worker.site.origin]

    def _pool_of(
        self, keyed: KeyedPool[Origin, Connection], origin: Origin
    ) -> tuple[Pool[Connection], ConnectionWorker]:
        try:
            pool = keyed.pool_of(origin)
        except PoolClosed as error:
            raise self._library.closed(str(error)) from error
        worker = self._workers[origin]
        if not worker.is_set_up:
            worker.is_set_up = True
            setting = self._plan.setting_for(origin)
            if setting is not self._plan.default:
                pool.resize(min_size=setting.min_connections, max_size=setting.max_connections)
        return pool, worker

    def _recount(self, origin: Origin) -> None:
        """Let those know who wait that a server takes more requests, or fewer."""
        if self._session is not None and self._session.keyed is not None:
            self._session.keyed.pool_of(origin).refresh_capacity()

    async def _lend(self, origin: Origin, ticket: Ticket) -> Hold:
        """Return the hold on a connection to ``origin``."""
        session = self._session
        keyed = session.keyed if session is not None and not self._closed else None
        if keyed is None:
            keyed = await self._open()
        pool, worker = self._pool_of(keyed, origin)
        failure: BaseException | None
        try:
            return Hold(await self._acquire(pool, ticket), worker)
        except PoolUnavailable as error:
            failure = self._library.connect_failed(error.__cause__)
        except CheckoutTimeout as error:
            raise self._library.pool_timeout(str(error)) from error
        except PoolOverloaded as error:
            raise self._library.overloaded(str(error)) from error
        except PoolClosed as error:
            raise self._library.closed(str(error)) from error
        finally:
            if ticket.waits:
                ticket.give_up()
                worker.settled(ticket)
        raise failure  # here, so that its context is not an exception of which it is the cause

    async def _acquire(self, pool: Pool[Connection], ticket: Ticket) -> Foreign:
        seconds = ticket.timeouts.get("pool")
        if seconds is None:
            return await pool.acquire(ticket, timeout=None, owner=None)
        lease = None
        with trio.CancelScope() as ticket.scope:
            lease = await pool.acquire(ticket, timeout=None, owner=None)
        if lease is None:
            raise CheckoutTimeout(f"no connection within {seconds:g} s: {pool!r}")
        return lease

    def _translated(self, request: Foreign, body: Foreign) -> Foreign:
        """Return the request as httpcore wants it."""
        core = self._library.core
        url = request.url
        return core.Request(
            method=request.method,
            url=core.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=body,
            extensions=request.extensions,
        )


def _insist_on_trio() -> None:
    try:
        trio.lowlevel.current_trio_token()
    except RuntimeError:
        raise RuntimeError("a PooledTransport works on trio only; on asyncio use the client's own transport") from None
