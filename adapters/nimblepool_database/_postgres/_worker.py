"""The pool's worker for PostgreSQL."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, final

import trio

from nimblepool import DEFAULT, Default, Reason, Verdict
from nimblepool_database._errors import Unsupported
from nimblepool_database._worker import DatabaseWorker

from ._conninfo import parse
from ._listen import Notifications, check_channels, listen_to
from ._options import PREPARE_AFTER, PostgresOptions, parse_url
from ._resource import PostgresResource
from ._trio_connection import TrioConnection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

    from psycopg import Notify
    from psycopg.rows import AsyncRowFactory

    from ._options import Configure, Reset

DEFAULTS: Final[Mapping[str, Any]] = {"on_open_failure": "wait", "ping_after": 10.0, "ping_timeout": 2.0}
"""A server that restarts is waited for. A connection that the server has closed shows that at every checkout, without a
ping: a ping finds the one that a network has swallowed, so it need not be frequent."""
REFRESH_PAUSE: Final = 5.0
"""Seconds after a REFRESH in which further complaints cost their own connection only. Connections that were lent during
the REFRESH complain later, of what it has seen to; and where every server refuses to write, it does not help."""


@final
class PostgresWorker(DatabaseWorker[PostgresResource]):
    """Opens, judges and closes connections to a PostgreSQL server; for `Database`, or alone for `nimblepool.open_pool`.

    The connections are in autocommit mode. One that comes back in a transaction is rolled back; one that comes back
    in the middle of something, or closed, is removed. With ``open_pool`` pass ``**worker.pool_options({})``.

    Args:
        conninfo: a URL or libpq's ``key=value`` form; what is missing is taken from libpq's environment variables.
            ``target_session_attrs=read-write`` keeps out servers that only allow reading.
        configure: awaited with every new `TrioConnection` before it is lent; for settings and types. Behind PgBouncer
            a ``SET`` in it would leak to other clients.
        reset: ``"auto"`` rolls back what was left open. ``"discard"`` also runs ``DISCARD ALL`` after every lease, in
            the background: nothing of a client's settings, temporary tables or advisory locks is left. As nothing is
            of what ``configure`` set either, that is awaited again.
        statement_timeout: seconds that the server gives each statement; ``None`` leaves it to the server.
        commit_timeout: seconds that COMMIT or ROLLBACK, which no cancellation cuts short, may take.
        cancel_timeout: seconds that a cancelled task waits for the server to break its statement off; then the
            connection is closed.
        application_name: what ``pg_stat_activity`` calls the connections.
        prepare_threshold: how often a statement runs on a connection before it is prepared; 0: at once, ``None``:
            never. Default 5, behind PgBouncer never.
        row_factory: what makes rows, as in psycopg; tuples by default.
        pgbouncer: whether the connections lead to PgBouncer in transaction mode. Then ``statement_timeout`` applies in
            transactions only, ``listen`` is refused, and what the server says of being a standby is not relied upon.

    Raises:
        ValueError: an option is out of range, or the connection string cannot be read; the text never quotes it.
    """

    database = "PostgreSQL"

    def __init__(
        self,
        conninfo: str,
        *,
        configure: Configure | None = None,
        reset: Reset = "auto",
        statement_timeout: float | None = None,
        commit_timeout: float = 10.0,
        cancel_timeout: float = 5.0,
        application_name: str | None = None,
        prepare_threshold: int | Default | None = DEFAULT,
        row_factory: AsyncRowFactory[Any] | None = None,
        pgbouncer: bool = False,
    ) -> None:
        if isinstance(prepare_threshold, Default):
            prepare_threshold = None if pgbouncer else PREPARE_AFTER
        self._options = PostgresOptions(
            parameters=parse(conninfo),
            configure=configure,
            reset=reset,
            statement_timeout=statement_timeout,
            commit_timeout=commit_timeout,
            cancel_timeout=cancel_timeout,
            application_name=application_name,
            prepare_threshold=prepare_threshold,
            row_factory=row_factory,
            pgbouncer=pgbouncer,
        )
        self._conninfo = self._options.conninfo
        self._next_refresh = -math.inf

    @classmethod
    def from_url(cls, url: str) -> PostgresWorker:
        """Make the worker for ``postgresql://user:password@host:5432/database?option=value`` (or ``postgres://``).

        The query may hold libpq's options (``sslmode``, ``application_name``) and ``reset``, ``statement_timeout``,
        ``commit_timeout``, ``cancel_timeout``, ``prepare_threshold`` (a count or ``none``) and ``pgbouncer`` (``on``).

        Raises:
            ValueError: the URL has another form, or an option that does not exist or is out of range.
        """
        conninfo, options = parse_url(url)
        return cls(conninfo, **options)

    def __repr__(self) -> str:
        return f"PostgresWorker({self._options.where})"

    def pool_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Add PostgreSQL's defaults: ``on_open_failure="wait"``, ``ping_after=10.0``, ``ping_timeout=2.0``."""
        return {**DEFAULTS, **given}

    async def start(self) -> None:
        """Begin anew: the clock of this run has nothing to do with that of an earlier one."""
        self._next_refresh = -math.inf

    async def init(self) -> PostgresResource:
        """Open one connection and configure it."""
        raw = await self._connect()
        try:
            await self._options.set_up(raw)
        except BaseException:
            await raw.close()
            raise
        return PostgresResource(raw, self._options)

    async def terminate(self, resource: PostgresResource, reason: Reason) -> None:
        """Close the connection; a statement that still runs is broken off in the server."""
        await resource.close()

    def checkout(self, resource: PostgresResource, request: object) -> Verdict:
        """Lend the connection, unless the server has closed it."""
        return self._temper(resource.lend())

    def checkin(self, resource: PostgresResource, error: BaseException | None) -> Verdict:
        """Keep a healthy connection whatever the client's error was: what the connection went through, it knows."""
        return self._temper(resource.take_back())

    async def reset(self, resource: PostgresResource) -> None:
        """Roll back the transaction that a client left open, and do what ``reset`` says."""
        await resource.reset()

    async def ping(self, resource: PostgresResource) -> None:
        """Ask the server for an answer."""
        await resource.ping()

    async def watch(self, resource: PostgresResource) -> None:
        """Raise as soon as the server has closed a connection that rests."""
        await resource.watch()

    @asynccontextmanager
    async def listen(self, channels: Sequence[str]) -> AsyncGenerator[AsyncIterator[Notify]]:
        """Open a connection beside the pool and yield psycopg's `Notify` of what is notified on ``channels``.

        What was notified after the block began is kept until it is read. When the connection is lost the next wait
        raises the driver's error; what was notified until a new block has begun is then lost, too.

        Raises:
            ValueError: there is no channel, or a name that cannot be one.
            Unsupported: behind PgBouncer, in whose transaction mode nothing would ever arrive.
            psycopg.OperationalError: the server cannot be reached.
        """
        names = check_channels(channels)
        if self._options.pgbouncer:
            raise Unsupported("listen() needs a connection to PostgreSQL itself, not to PgBouncer (pgbouncer=True)")
        raw = await self._connect()
        try:
            await listen_to(raw, names)
            yield Notifications(raw)
        finally:
            await raw.close()

    def _temper(self, verdict: Verdict) -> Verdict:
        if verdict is not Verdict.REFRESH:
            return verdict
        now = trio.current_time()
        if now < self._next_refresh:
            return Verdict.REMOVE
        self._next_refresh = now + REFRESH_PAUSE
        return Verdict.REFRESH

    async def _connect(self) -> TrioConnection[Any]:
        options = self._options
        raw: TrioConnection[Any] = await TrioConnection.connect(
            self._conninfo,
            autocommit=True,
            prepare_threshold=options.prepare_threshold,
            row_factory=options.row_factory,
        )
        raw.cancel_timeout = options.cancel_timeout
        return raw
