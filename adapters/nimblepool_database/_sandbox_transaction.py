"""The transaction that a sandbox lives in, and what each client sees of it.

To a client in a sandbox, its connection looks like any other: a statement outside a transaction stands for itself, a
transaction is committed or rolled back. Underneath, everything is a savepoint in one transaction that never commits.
A statement "in autocommit" gets a savepoint of its own, because its failure must not spoil what was done before:
PostgreSQL refuses everything after the first error in a transaction. Inside a client's own transaction it gets none:
there a failure does to the test what it would do in production.
"""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, final

import trio

from ._dbapi._statements import BLANK
from ._errors import TransactionLost, Unsupported
from ._resource import DatabaseResource

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable

    from ._holding import Holding
    from ._resource import Isolation, Parameters, Row

BY_HAND = re.compile(
    BLANK + r"(begin|(start|prepare)\s+transaction|commit|end|abort|rollback(?!\s+((work|transaction)\s+)?to\b))\b",
    re.IGNORECASE | re.DOTALL,
)
"""What would end the sandbox's own transaction, or begin another one in it."""


@final
class SandboxTransaction:
    """One connection in a transaction of its own, and the savepoints that are set in it.

    Invariants:
        _set lists the savepoints in the order in which the database has them; each name is there once
    """

    def __init__(self, held: Holding) -> None:
        self._held = held
        self._set: list[str] = []
        # Tasks may share a client's connection: their statements must not nest in each other's savepoints.
        self._turn = trio.Lock()

    @property
    def resource(self) -> DatabaseResource:
        """The connection, which in a sandbox within a sandbox is the outer one's.

        Raises:
            nimblepool.LeaseExpired: the sandbox has ended.
        """
        return self._held.resource

    @property
    def driver(self) -> DatabaseResource:
        """The connection as the database's worker knows it."""
        resource = self.resource
        return resource.driver if isinstance(resource, SandboxResource) else resource

    @asynccontextmanager
    async def atomic(self) -> AsyncGenerator[DatabaseResource, None]:
        """Run the block's statements all or none, with no other task's statement in between."""
        async with self._turn:
            name = await self._set_savepoint()
            try:
                yield self.resource
                await self.release(name)
            except BaseException:
                await self.rollback_to(name)
                raise

    async def savepoint(self) -> str:
        """Set a savepoint and return its name."""
        async with self._turn:
            return await self._set_savepoint()

    async def release(self, name: str) -> None:
        """Keep what was done since the savepoint; those that were set after it end, too.

        Raises:
            TransactionLost: it ended with one that was set before it.
        """
        if name not in self._set:
            raise TransactionLost("the transaction around this one has ended, and this one with it")
        await self.resource.release(name)
        self._forget(name)

    async def rollback_to(self, name: str) -> None:
        """Undo what was done since the savepoint, if it is still there. Raises nothing but `LeaseExpired`."""
        if name in self._set:
            await self.resource.rollback_to(name)
            self._forget(name)

    async def _set_savepoint(self) -> str:
        name = f"nimblepool_sandbox_{len(self._set)}"
        self._set.append(name)
        try:
            await self.resource.savepoint(name)
        except BaseException:
            self._forget(name)
            raise
        return name

    def _forget(self, name: str) -> None:
        if name in self._set:
            del self._set[self._set.index(name) :]


@final
class SandboxResource(DatabaseResource):
    """What one client sees of the sandbox's connection: its own transaction, or none."""

    def __init__(self, transaction: SandboxTransaction) -> None:
        self.database = transaction.resource.database
        self._transaction = transaction
        self._block: str | None = None
        self._names: dict[str, str] = {}
        self._in_pipeline = False

    @property
    def driver(self) -> DatabaseResource:
        """The connection as the database's worker knows it."""
        return self._transaction.driver

    @property
    def raw(self) -> Any:  # noqa: ANN401 - each driver has a type of its own
        """The driver's own connection."""
        return self._transaction.resource.raw

    async def execute(self, sql: str, params: Parameters = ()) -> int:
        """Run one statement."""
        async with self._statement(sql) as resource:
            return await resource.execute(sql, params)

    async def execute_many(self, sql: str, rows: Iterable[Parameters]) -> int:
        """Run one statement for each of ``rows``."""
        async with self._statement(sql) as resource:
            return await resource.execute_many(sql, rows)

    async def fetch_all(self, sql: str, params: Parameters = ()) -> list[Row]:
        """Run one statement; return its rows."""
        async with self._statement(sql) as resource:
            return await resource.fetch_all(sql, params)

    async def fetch_one(self, sql: str, params: Parameters = ()) -> Row | None:
        """Run one statement; return its first row."""
        async with self._statement(sql) as resource:
            return await resource.fetch_one(sql, params)

    async def fetch_value(self, sql: str, params: Parameters = ()) -> Any:  # noqa: ANN401 - whatever the column holds
        """Run one statement; return the first column of its first row."""
        async with self._statement(sql) as resource:
            return await resource.fetch_value(sql, params)

    @asynccontextmanager
    async def stream(
        self, sql: str, params: Parameters = (), *, batch: int
    ) -> AsyncGenerator[AsyncIterator[Row], None]:
        """Run one statement; let its rows be read in the block."""
        _refuse_by_hand(sql)
        async with self._block_of_statements(), self._transaction.resource.stream(sql, params, batch=batch) as rows:
            yield rows

    @asynccontextmanager
    async def copy(self, sql: str, params: Parameters = ()) -> AsyncGenerator[Any, None]:
        """Run a COPY."""
        async with self._block_of_statements(), self._transaction.resource.copy(sql, params) as copy:
            yield copy

    @asynccontextmanager
    async def pipeline(self) -> AsyncGenerator[Any, None]:
        """Send the block's statements without waiting; all or none of them count."""
        async with self._block_of_statements(), self._transaction.resource.pipeline() as pipeline:
            # A savepoint around each of them would be another two round trips, and the block is one already.
            self._in_pipeline = True
            try:
                yield pipeline
            finally:
                self._in_pipeline = False

    async def call(self, fn: Callable[..., Any], *args: Any) -> Any:  # noqa: ANN401 - whatever fn takes and returns
        """Run ``fn(raw, *args)``, which must leave the sandbox's transaction open."""
        async with self._statement("") as resource:
            return await resource.call(fn, *args)

    async def begin(self, isolation: Isolation | None = None, *, readonly: bool = False) -> None:  # noqa: ARG002
        """Set the savepoint that stands for the client's BEGIN. Its options are those of the sandbox's transaction."""
        assert self._block is None, "bug: a transaction in a transaction"
        self._block = await self._transaction.savepoint()

    async def commit(self) -> None:
        """Keep what was done since ``begin``, in the sandbox."""
        assert self._block is not None, "bug: COMMIT without BEGIN"
        await self._transaction.release(self._block)
        self._block = None

    async def rollback(self) -> None:
        """Undo what was done since ``begin``."""
        block, self._block = self._block, None
        if block is not None:
            await self._transaction.rollback_to(block)

    async def savepoint(self, name: str) -> None:
        """Set a savepoint, under a name that no other client has."""
        self._names[name] = await self._transaction.savepoint()

    async def release(self, name: str) -> None:
        """Keep what was done since the savepoint."""
        await self._transaction.release(self._names[name])

    async def rollback_to(self, name: str) -> None:
        """Undo what was done since the savepoint."""
        await self._transaction.rollback_to(self._names[name])

    @asynccontextmanager
    async def _statement(self, sql: str) -> AsyncGenerator[DatabaseResource, None]:
        _refuse_by_hand(sql)
        if self._block is not None or self._in_pipeline:
            yield self._transaction.resource
            return
        async with self._transaction.atomic() as resource:
            yield resource

    @asynccontextmanager
    async def _block_of_statements(self) -> AsyncGenerator[None, None]:
        """As `_statement`, but the client's other statements may run in the block."""
        if self._block is not None:
            yield
            return
        name = await self._transaction.savepoint()
        try:
            yield
            await self._transaction.release(name)
        except BaseException:
            await self._transaction.rollback_to(name)
            raise


def _refuse_by_hand(sql: str) -> None:
    if found := BY_HAND.match(sql):
        raise Unsupported(
            f"{found[1].upper()} by hand is not supported in a sandbox: it would end the sandbox's own "
            "transaction; use transaction()"
        )
