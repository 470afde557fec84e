"""What a pooled connection's statements and transactions share: its driver, and what is known about its health."""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, final

import psycopg
import trio
from psycopg import pq

from nimblepool import Verdict

from . import _commands
from ._errors import READ_ONLY, verdict_on
from ._idle import IdleWatch

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from psycopg import AsyncPipeline

    from ._options import PostgresOptions
    from ._trio_connection import TrioConnection

IDLE: Final = pq.TransactionStatus.IDLE
BAD: Final = pq.ConnStatus.BAD

logger = logging.getLogger("nimblepool.database")


@final
class Session:
    """One connection, the statements that are ours, and the verdict on it.

    Invariant: verdict never gets milder: OK, then REMOVE, then REFRESH.

    Attributes:
        raw: the driver's connection.
        idle: what looks after it while nobody uses it.
        verdict: what the errors of its statements say about it.
        pipeline: psycopg's object while statements are sent without waiting for their answers.
        readonly: whether the transaction that is open was meant to read only.
    """

    def __init__(self, raw: TrioConnection[Any], options: PostgresOptions) -> None:
        self.raw = raw
        self.pgconn = raw.pgconn
        self.options = options
        self.idle = IdleWatch(raw)
        self.verdict = Verdict.OK
        self.pipeline: AsyncPipeline | None = None
        self.readonly = False

    @property
    def closed(self) -> bool:
        """Whether the connection has ended."""
        return self.pgconn.status == BAD

    @property
    def status(self) -> int:
        """Psycopg's `TransactionStatus`."""
        return self.pgconn.transaction_status

    async def command(self, *statements: bytes) -> bytes:
        """Run statements of our own in one round trip; return what the server calls the last of them."""
        async with self.raw.lock.kept():
            tag = await self._send(statements)
            if statements[0].startswith(b"ROLLBACK") or tag == b"ROLLBACK":
                await self.raw.forget_prepared()
            return tag

    async def decide(self, *statements: bytes) -> bytes | None:
        """Run statements that no cancellation cuts short; ``None``: the deadline did, and closed the connection."""
        with (
            self.judging(),
            trio.move_on_after(self.options.commit_timeout, shield=True),
            self.no_patience(),
        ):
            return await self.command(*statements)
        self.doom()
        return None

    async def undo(self, *statements: bytes) -> bool:
        """Run statements that roll back, whatever the state; tell whether it worked, and doom the connection if not."""
        reason: object = f"no answer within {self.options.commit_timeout:g} s"
        try:
            with suppress(psycopg.Error):
                await self._synchronise_shielded()
            if await self.decide(*statements) is not None:
                return True
        except psycopg.Error as error:
            reason = error
        if not self.closed:
            logger.warning("%s failed (%s): the connection will be removed", statements[0].decode(), reason)
        self.doom()
        return False

    async def synchronise(self) -> None:
        """In a pipeline, wait for the answers to what was sent; its errors come out here."""
        if self.pipeline is not None:
            with self.judging():
                await self.pipeline.sync()

    @contextmanager
    def judging(self) -> Generator[None]:
        """Note what the errors of the block's statements say about the connection."""
        try:
            yield
        except psycopg.Error as error:
            self.judge(error)
            raise

    def judge(self, error: psycopg.Error) -> None:
        """Note what an error of a statement says about the connection."""
        # A connection that breaks off has an error without a code; what the server said before has one.
        verdict = verdict_on(error if error.sqlstate else self.idle.farewell or error)
        if error.sqlstate == READ_ONLY and self._chose_to_read():
            return
        if verdict is not Verdict.OK and self.verdict is not Verdict.REFRESH:
            self.verdict = verdict

    def doom(self) -> None:
        """Note that the connection is of no use any more."""
        if self.verdict is Verdict.OK:
            self.verdict = Verdict.REMOVE

    @contextmanager
    def no_patience(self) -> Generator[None]:
        """Let a deadline be the end: the driver does not negotiate with the server after it, but closes at once."""
        self.raw.cancel_timeout = 0.0
        try:
            yield
        finally:
            self.raw.cancel_timeout = self.options.cancel_timeout

    async def _synchronise_shielded(self) -> None:
        with trio.move_on_after(self.options.commit_timeout, shield=True), self.no_patience():
            await self.synchronise()

    async def _send(self, statements: Sequence[bytes]) -> bytes:
        if self.pipeline is not None:
            return await self._command_in(self.pipeline, statements)
        return await self.raw.wait(_commands.run(self.pgconn, statements))

    async def _command_in(self, pipeline: AsyncPipeline, statements: Iterable[bytes]) -> bytes:
        cursor = self.raw.cursor()
        for statement in statements:
            cursor = await self.raw.execute(statement, prepare=False)
        await pipeline.sync()
        return (cursor.statusmessage or "").encode()

    def _chose_to_read(self) -> bool:
        # Since PostgreSQL 14 a server says so itself when it becomes a standby; one that says that it is none refused
        # because of a setting. Behind PgBouncer the word is another server's.
        primary = not self.options.pgbouncer and self.pgconn.parameter_status(b"in_hot_standby") == b"off"
        return self.readonly or primary
