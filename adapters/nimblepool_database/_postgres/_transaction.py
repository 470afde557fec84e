"""The transaction of one pooled connection."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, final

import psycopg
import trio
from psycopg import pq

from . import _commands
from ._errors import UNDECIDED, PostgresCommitUnknown, PostgresTransactionLost
from ._session import IDLE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from nimblepool_database._resource import Isolation

    from ._session import Session

INTRANS: Final = pq.TransactionStatus.INTRANS
INERROR: Final = pq.TransactionStatus.INERROR
OPEN: Final = frozenset({INTRANS, INERROR})

GONE: Final = "the transaction is gone: a statement of its block ended it; run it again without that statement"
LOST: Final = "the transaction is gone with its connection, and nothing of it was committed; run it again"
FAILED: Final = "a statement of the transaction failed, so that nothing can be committed; run it again"
NOT_UNDONE: Final = "the transaction is lost: what was done since a savepoint could not be undone"


@final
class Transaction:
    """BEGIN, COMMIT, ROLLBACK and savepoints, as `DatabaseResource` describes them.

    Attributes:
        open: between `begin` and `commit` or `rollback`. The server may end the transaction before that: then
            statements must not run, for each would commit by itself.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.open = False
        # A savepoint that was to be undone was not: what follows must not count.
        self._lost = False

    async def begin(self, isolation: Isolation | None, *, readonly: bool) -> None:
        """Open a transaction; leave none open if that fails."""
        session = self._session
        statements = session.options.begin(isolation, readonly=readonly)
        async with session.raw.lock.kept():
            await session.synchronise()
            if session.status in OPEN:
                raise psycopg.errors.ActiveSqlTransaction("a transaction is open on this connection already")
            try:
                with session.judging():
                    await session.command(*statements)
            except BaseException:
                # A cancelled BEGIN may have worked.
                await self.rollback()
                raise
            self.open, session.readonly = True, readonly

    async def commit(self) -> None:
        """Commit the transaction; after an error it is to be rolled back."""
        # Nothing is decided yet while another task uses the connection: that wait is neither shielded nor timed.
        async with self._session.raw.lock.kept():
            await self._session.synchronise()
            self._check_committable()
            tag = await self._commit()
        if tag == b"ROLLBACK":
            raise PostgresTransactionLost(FAILED)
        self.forget()

    async def rollback(self) -> None:
        """Undo the transaction, if one is open; raises nothing."""
        session = self._session
        if session.pipeline is not None or session.status != IDLE:
            await session.undo(b"ROLLBACK")
        self.forget()

    async def savepoint(self, name: str) -> None:
        """Set a savepoint; shielded, for whether a cancelled one was set could not be told."""
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._run(_commands.set_savepoint(name))

    async def release(self, name: str) -> None:
        """Give a savepoint up, and keep what was done since."""
        await self._run(_commands.release(name))

    async def rollback_to(self, name: str) -> None:
        """Undo what was done since a savepoint, and give it up; where that cannot be done, the transaction is lost."""
        if not await self._session.undo(_commands.rollback_to(name), _commands.release(name)):
            self._lost = True

    def check(self) -> None:
        """Raise if a statement would not run in the transaction that its block believes to be in."""
        if self._lost:
            raise PostgresTransactionLost(NOT_UNDONE)
        if self.open and self._session.status == IDLE:
            raise PostgresTransactionLost(GONE)

    def forget(self) -> None:
        """Note that no transaction is open."""
        self.open = self._lost = self._session.readonly = False

    @asynccontextmanager
    async def joined(self) -> AsyncGenerator[None]:
        """Run a block in the transaction that is open, or in one of its own."""
        if not await self._begin_unless_open():
            yield
            return
        try:
            yield
            await self.commit()
        except BaseException:
            await self.rollback()
            raise

    @asynccontextmanager
    async def all_or_none(self) -> AsyncGenerator[None]:
        """Run a block in a savepoint of the transaction that is open, or in a transaction of its own.

        Tasks that share the connection wait meanwhile: their statements would be undone with the block's.
        """
        async with self._session.raw.lock.kept():
            await self._session.synchronise()
            inside = self.open or self._session.status != IDLE
            async with self._savepoint("nimblepool_many") if inside else self.joined():
                yield

    @asynccontextmanager
    async def _savepoint(self, name: str) -> AsyncGenerator[None]:
        await self.savepoint(name)
        try:
            yield
            await self.release(name)
        except BaseException:
            await self.rollback_to(name)
            raise

    async def _begin_unless_open(self) -> bool:
        # While another task's statement runs, the status tells nothing of transactions.
        async with self._session.raw.lock.kept():
            await self._session.synchronise()
            if self.open or self._session.status != IDLE:
                return False
            await self.begin(None, readonly=False)
            return True

    async def _run(self, statement: bytes) -> None:
        """Run a statement on savepoints in the transaction that is open."""
        async with self._session.raw.lock.kept():
            await self._session.synchronise()
            self.check()
            await self._must(statement)

    async def _commit(self) -> bytes:
        session = self._session
        try:
            tag = await session.decide(b"COMMIT")
        except psycopg.Error as error:
            if not session.closed and error.sqlstate not in UNDECIDED:
                raise
            session.doom()
            raise PostgresCommitUnknown(
                "the connection was lost before COMMIT was answered: it may or may not have happened; ask the data"
            ) from error
        if tag is None:
            raise PostgresCommitUnknown(
                f"COMMIT was not answered within {session.options.commit_timeout:g} s (commit_timeout): it may or may "
                "not have happened, and its connection is being removed; ask the data"
            )
        return tag

    async def _must(self, statement: bytes) -> None:
        if await self._session.decide(statement) is None:
            self._lost = True
            raise PostgresTransactionLost(
                f"{statement.decode()} was not answered within {self._session.options.commit_timeout:g} s "
                "(commit_timeout); nothing of the transaction was committed, and its connection is being removed"
            )

    def _check_committable(self) -> None:
        """Raise if it is certain that nothing will be committed."""
        session = self._session
        if session.status == INTRANS and session.pipeline is None:
            self._check_alive()
        if session.closed:
            raise PostgresTransactionLost(LOST)
        self.check()
        if session.status == INERROR:
            raise PostgresTransactionLost(FAILED)
        if session.status == IDLE:
            raise PostgresTransactionLost(GONE)

    def _check_alive(self) -> None:
        # The server ended the session before COMMIT was sent: better said than left unknown.
        try:
            self._session.idle.look()
        except psycopg.OperationalError as error:
            self._session.judge(error)
            self._session.doom()
            raise PostgresTransactionLost(LOST) from error
