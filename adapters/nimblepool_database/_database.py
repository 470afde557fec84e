"""A database, reached through a pool of connections."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast, final

from nimblepool import Pool, PoolClosed, PoolOptions, open_pool

from ._backends import worker_for
from ._connection import Connection
from ._transaction import transaction_on

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType
    from typing import Self, Unpack

    from nimblepool import PoolStats

    from ._resource import DatabaseResource, Parameters, Row
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

    Args:
        source: a URL (``sqlite:///relative.db``, ``sqlite:////absolute/path.db``, ``sqlite:///:memory:``; the options
            of `SQLiteWorker` may follow as a query), or a worker: ``SQLiteWorker("app.db", busy_timeout=2.0)``.
        **pool_options: the options of `nimblepool.open_pool`. SQLite's default for ``max_size`` is 4; an in-memory
            database has one connection, and every lease waits for it.

    Raises:
        ValueError: the URL or an option is wrong; the text says what is allowed.
    """

    def __init__(self, source: str | DatabaseWorker[Any], **pool_options: Unpack[PoolOptions]) -> None:
        self._worker = worker_for(source) if isinstance(source, str) else source
        self._options = cast("PoolOptions", self._worker.pool_options(pool_options))
        self._opened: AbstractAsyncContextManager[Pool[DatabaseResource]] | None = None
        self._pool: Pool[DatabaseResource] | None = None

    async def __aenter__(self) -> Self:
        if self._opened is not None:
            raise RuntimeError("this Database is open already: one `async with` at a time")
        self._opened = open_pool(self._worker, **self._options)
        try:
            self._pool = await self._opened.__aenter__()
        except BaseException:
            self._opened = None
            raise
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
        """The pool under it, for what only a pool can do (``resize``, ``refresh``, ``drain``); closed after the block.

        Raises:
            nimblepool.PoolClosed: before the ``async with`` block.
        """
        if self._pool is None:
            raise PoolClosed("the database is not open yet: use it inside `async with Database(...) as db`")
        return self._pool

    @property
    def stats(self) -> PoolStats:
        """The pool's figures at this moment, or as they stood when the block ended."""
        return self.pool.stats

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection, None]:
        """Lease a connection for a block, in the database's autocommit mode.

        A transaction that the block opened by hand (``BEGIN``) and left open is rolled back. An exception in the
        block comes out as it is and costs the connection only if it is broken.

        Raises:
            nimblepool.CheckoutTimeout: none was free within ``checkout_timeout``.
            nimblepool.PoolError: the pool refuses for another reason.
        """
        async with self.pool.checkout() as lease:
            yield Connection(lease)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Connection, None]:
        """Lease a connection and run the block in a transaction: committed at its end, rolled back on any exception.

        The exception comes out as it is; a cancellation is one. COMMIT and ROLLBACK are not cancelled: a block that
        came to its end is committed, or says why it is not. SQLite's transaction has the right to write from its
        beginning (``BEGIN IMMEDIATE``); those of one pool queue for it, first come, first served.

        Raises:
            TransactionLost: the transaction was gone before the block ended; nothing it did counts.
            CommitUnknown: COMMIT did not come back; the connection is removed.
            nimblepool.PoolError: as for `connection`.
        """
        async with self.pool.checkout() as lease, transaction_on(lease):
            yield Connection(lease)

    async def execute(self, sql: str, params: Parameters = ()) -> int:
        """Run one statement on any connection; see `Connection.execute`."""
        async with self.connection() as conn:
            return await conn.execute(sql, params)

    async def execute_many(self, sql: str, rows: Iterable[Parameters]) -> int:
        """Run one changing statement for each of ``rows``, all or none; see `Connection.execute_many`."""
        async with self.connection() as conn:
            return await conn.execute_many(sql, rows)

    async def fetch_all(self, sql: str, params: Parameters = ()) -> list[Row]:
        """Return the rows of one statement; see `Connection.fetch_all`."""
        async with self.connection() as conn:
            return await conn.fetch_all(sql, params)

    async def fetch_one(self, sql: str, params: Parameters = ()) -> Row | None:
        """Return the first row of one statement; see `Connection.fetch_one`."""
        async with self.connection() as conn:
            return await conn.fetch_one(sql, params)

    async def fetch_value(self, sql: str, params: Parameters = ()) -> Any:  # noqa: ANN401 - whatever the column holds
        """Return the first column of the first row of one statement; see `Connection.fetch_value`."""
        async with self.connection() as conn:
            return await conn.fetch_value(sql, params)
