"""A database, reached through a pool of connections."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, final

from nimblepool import PoolClosed

from ._backends import worker_from
from ._connection import DEFAULT_BATCH, Connection
from ._holding import Routes
from ._pools import Plan
from ._sandbox import open_sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType
    from typing import Self, Unpack

    from nimblepool import Pool, PoolOptions, PoolStats

    from ._pools import Pools
    from ._resource import DatabaseResource, Isolation, Parameters, Row
    from ._worker import DatabaseWorker


@final
class Database:
    """A database and a pool of connections to it, open inside ``async with``.

    ```python
    async with Database("sqlite:///app.db", max_size=8) as db:
        async with db.transaction() as conn:
            await conn.execute("UPDATE account SET balance = balance - ? WHERE id = ?", (10, 1))
            await conn.execute("UPDATE account SET balance = balance + ? WHERE id = ?", (10, 2))
        rows = await db.fetch_all("SELECT id, balance FROM account")
    ```

    Leaving the block closes every connection, and ends every thread, that it opened. After that it can be entered
    again.

    A SQLite file has one writer at a time. So one connection is set aside for `transaction`, `execute` and
    `execute_many`, which queue for it, while the others serve `connection`, ``fetch_*`` and `stream`, and go on reading
    meanwhile. ``max_size`` counts all of them; with 1 there is one for everything.

    Args:
        source: a URL (``postgresql://user@host/name``; ``sqlite:///relative.db``, ``sqlite:////absolute/path.db``,
            ``sqlite:///:memory:``; the options of `PostgresWorker` or `SQLiteWorker` may follow as a query), or a
            worker: ``SQLiteWorker("app.db", busy_timeout=2.0)``.
        replica: a second URL or worker, of a server that follows the first, for what is called with
            ``readonly=True``. Its pool has the same options.
        **pool_options: the options of `nimblepool.open_pool`. SQLite's default for ``max_size`` is 4; an in-memory
            database has one connection, and every lease waits for it. PostgreSQL's default for ``on_open_failure`` is
            ``"wait"``: a server that restarts is waited for, as long as ``checkout_timeout`` allows.

    Raises:
        ValueError: the URL or an option is wrong; the text says what is allowed, and never repeats the URL.
        TypeError: an option does not exist or is of the wrong type.
        ImportError: the database's driver is not installed.
    """

    def __init__(
        self,
        source: str | DatabaseWorker[Any],
        *,
        replica: str | DatabaseWorker[Any] | None = None,
        **pool_options: Unpack[PoolOptions],
    ) -> None:
        follower = None if replica is None else worker_from(replica)
        self._plan = Plan(worker_from(source), follower, pool_options)
        self._opened: AsyncExitStack | None = None
        self._pools: Pools | None = None
        # The routes of the pools, and then those of the sandboxes that are open, the innermost last.
        self._layers: list[Routes] = []

    async def __aenter__(self) -> Self:
        if self._opened is not None:
            raise RuntimeError("this Database is open already: one `async with` at a time")
        async with AsyncExitStack() as stack:
            self._opened = stack
            try:
                self._pools = await self._plan.open(stack)
                self._layers = [self._pools.routes]
            except BaseException:
                self._opened = None
                raise
            self._opened = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        opened = self._opened
        assert opened is not None, "bug: left without having been entered"
        try:
            return await opened.__aexit__(kind, error, traceback)
        finally:
            self._opened = None

    @property
    def pool(self) -> Pool[DatabaseResource]:
        """The pool behind `connection`, for what only a pool can do (``resize``, ``refresh``, ``drain``).

        With SQLite that is the readers' pool. It is closed after the block.

        Raises:
            nimblepool.PoolClosed: before the ``async with`` block.
        """
        return self._open_pools.general

    @property
    def writer_pool(self) -> Pool[DatabaseResource]:
        """The pool behind `transaction`, `execute` and `execute_many`: SQLite's one writer; else the same as `pool`."""
        return self._open_pools.writing

    @property
    def reader_pool(self) -> Pool[DatabaseResource]:
        """The pool behind ``readonly=True``: the replica's, if there is one; else the same as `pool`."""
        return self._open_pools.reading

    @property
    def stats(self) -> PoolStats:
        """The figures of all connections at this moment, or as they stood when the block ended.

        Where there are several pools it is their sum, under the name and the status of `pool`; waits are the longest of
        any, and the breaker is the worst. The figures of one pool are its own: ``db.writer_pool.stats``.
        """
        return self._open_pools.stats()

    @asynccontextmanager
    async def connection(self, *, readonly: bool = False) -> AsyncGenerator[Connection, None]:
        """Lease a connection for a block, in the database's autocommit mode.

        A transaction that the block opened by hand (``BEGIN``) and left open is rolled back. An exception in the
        block comes out as it is and costs the connection only if it is broken.

        Args:
            readonly: a promise that the block only reads, so that a replica may serve it. Whether a statement that
                writes is refused is up to the server; `transaction` with ``readonly`` refuses in any case.

        Raises:
            nimblepool.CheckoutTimeout: none was free within ``checkout_timeout``.
            nimblepool.PoolError: the pool refuses for another reason.
        """
        routes = self._routes
        async with (routes.reading if readonly else routes.general)() as held:
            yield Connection(held)

    @asynccontextmanager
    async def transaction(
        self, *, isolation: Isolation | None = None, readonly: bool = False
    ) -> AsyncGenerator[Connection, None]:
        """Lease a connection and run the block in a transaction: committed at its end, rolled back on any exception.

        The exception comes out as it is; a cancellation is one. COMMIT and ROLLBACK are not cancelled: a block that
        came to its end is committed, or says why it is not. SQLite's transaction has the right to write from its
        beginning (``BEGIN IMMEDIATE``); those of one pool queue for it, first come, first served.

        Args:
            isolation: how much it sees of others; ``None`` for the database's own default. SQLite is always
                serializable, which is right for every level.
            readonly: refuse to write, and be served by a reader or a replica. With SQLite the block then sees the file
                as it was at its first statement, whatever is written meanwhile.

        Raises:
            TransactionLost: the transaction was gone before the block ended; nothing it did counts.
            CommitUnknown: COMMIT got no answer; the connection is removed.
            ValueError: ``isolation`` is not one of the levels.
            nimblepool.PoolError: as for `connection`.
        """
        routes = self._routes
        async with (routes.reading if readonly else routes.writing)() as held:
            conn = Connection(held)
            async with conn.transaction(isolation=isolation, readonly=readonly):
                yield conn

    async def execute(self, sql: str, params: Parameters = ()) -> int:
        """Run one statement on a connection that may write; see `Connection.execute`."""
        async with self._routes.writing() as held:
            return await held.resource.execute(sql, params)

    async def execute_many(self, sql: str, rows: Iterable[Parameters]) -> int:
        """Run one changing statement for each of ``rows``, all or none; see `Connection.execute_many`."""
        async with self._routes.writing() as held:
            return await held.resource.execute_many(sql, rows)

    async def fetch_all(self, sql: str, params: Parameters = ()) -> list[Row]:
        """Return the rows of one statement; see `Connection.fetch_all`."""
        async with self._routes.general() as held:
            return await held.resource.fetch_all(sql, params)

    async def fetch_one(self, sql: str, params: Parameters = ()) -> Row | None:
        """Return the first row of one statement; see `Connection.fetch_one`."""
        async with self._routes.general() as held:
            return await held.resource.fetch_one(sql, params)

    async def fetch_value(self, sql: str, params: Parameters = ()) -> Any:  # noqa: ANN401 - whatever the column holds
        """Return the first column of the first row of one statement; see `Connection.fetch_value`."""
        async with self._routes.general() as held:
            return await held.resource.fetch_value(sql, params)

    @asynccontextmanager
    async def stream(
        self, sql: str, params: Parameters = (), *, batch: int = DEFAULT_BATCH
    ) -> AsyncGenerator[AsyncIterator[Row], None]:
        """Read the rows of one statement in the block, on a connection of its own; see `Connection.stream`."""
        async with self.connection() as conn, conn.stream(sql, params, batch=batch) as rows:
            yield rows

    @asynccontextmanager
    async def copy(self, sql: str, params: Parameters = ()) -> AsyncGenerator[Any, None]:
        """Run a COPY on a connection of its own; see `Connection.copy`."""
        async with self._routes.writing() as held, held.resource.copy(sql, params) as copy:
            yield copy

    @asynccontextmanager
    async def pipeline(self) -> AsyncGenerator[Connection, None]:
        """Lease a connection whose statements in the block do not wait for each answer; see `Connection.pipeline`."""
        async with self._routes.writing() as held:
            conn = Connection(held)
            async with conn.pipeline():
                yield conn

    def listen(self, *channels: str) -> AbstractAsyncContextManager[AsyncIterator[Any]]:
        """Hear what is notified on ``channels``: ``async with db.listen("jobs") as notes: async for note in notes``.

        It has a connection of its own, beside the pool, for as long as the block lasts. What a sandbox notifies is
        never heard, because its transaction does not commit.

        Raises:
            ValueError: there is no channel.
            Unsupported: the database has no notifications.
        """
        if not channels:
            raise ValueError("listen() needs the name of at least one channel")
        return self._plan.worker.listen(channels)

    @asynccontextmanager
    async def sandbox(self) -> AsyncGenerator[None, None]:
        """Undo everything that happens inside: for tests. Sandboxes may stand inside each other.

        Within the block all that this object is asked for, by any task, runs in one transaction on one connection,
        which is rolled back at the end. Clients take turns on it, under ``checkout_timeout``: what a task asks for
        inside its own block, or from tasks started there, joins that block. A transaction is a savepoint, whose
        ``isolation`` and ``readonly`` are not applied. BEGIN and COMMIT by hand are refused with `Unsupported`.

        Raises:
            nimblepool.PoolError: no connection was to be had.
            RuntimeError: sandboxes that overlap, instead of one standing inside the other.
        """
        async with (
            self._routes.writing() as held,
            open_sandbox(held, self._plan.worker, self._plan.options) as sandbox,
        ):
            routes = Routes(sandbox.checkout, sandbox.checkout, sandbox.checkout)
            self._layers.append(routes)
            try:
                yield
            finally:
                self._leave_sandbox(routes)

    @property
    def _open_pools(self) -> Pools:
        if self._pools is None:
            raise PoolClosed("the database is not open yet: use it inside `async with Database(...) as db`")
        return self._pools

    @property
    def _routes(self) -> Routes:
        return self._layers[-1] if self._layers else self._open_pools.routes

    def _leave_sandbox(self, routes: Routes) -> None:
        last = self._layers[-1]
        self._layers.remove(routes)
        if last is not routes:
            raise RuntimeError("a sandbox ended before one that was begun inside it; enter and leave them in one task")
