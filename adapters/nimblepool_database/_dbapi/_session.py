"""One connection as its thread sees it: transactions, verdicts, streams.

Every method but `Session.condemn` runs in the connection's thread.

A PEP 249 connection begins a transaction with whatever statement comes first, unless it can be switched to
autocommit. Both modes come to the same here: outside a transaction block each statement counts by itself, either
because the database says so, or because it is followed by ``commit()`` within the same hop.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, final

from nimblepool import Verdict
from nimblepool_database._errors import CommitUnknown, TransactionLost

from . import _statements
from ._driver import switch_to_autocommit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nimblepool_database._resource import Isolation, Parameters, Row

    from ._canceller import Canceller
    from ._driver import Driver

T = TypeVar("T")

SEVERITY = (Verdict.OK, Verdict.RESET, Verdict.REMOVE, Verdict.REFRESH)
SAVEPOINT = "nimblepool_many"
ATTEMPTS = 3
"""A cancellation that came too late can hit what settles the connection; more than one cannot be under way."""

logger = logging.getLogger("nimblepool.database")


@final
class Session:
    """A connection, and what has become of it.

    Attributes:
        connection: the driver's, while it is open.
        dirty: whether a client may have left a transaction open.
        verdict: the worst that an error has said about the connection.

    Invariants:
        _was_open implies _in_block; it is always false where nobody can tell
        _lost implies _in_block
    """

    def __init__(self, driver: Driver, canceller: Canceller) -> None:
        self._driver = driver
        self._canceller = canceller
        self.connection: Any = None
        self.dirty = False
        self.verdict = Verdict.OK
        self._in_block = False
        self._was_open = False
        self._lost = ""
        self._streaming = False
        self._unsettled = False

    @property
    def condemned(self) -> bool:
        """Whether the connection will be removed when its lease ends."""
        return self.verdict in {Verdict.REMOVE, Verdict.REFRESH}

    def connect(self) -> None:
        """Open the connection and switch it to the mode in which it is used."""
        # Kept from inside the thread: a cancelled opening still finds what to close.
        self.connection = self._driver.connect()
        if callable(self._driver.autocommit):
            self._driver.autocommit(self.connection)
        elif self._driver.autocommit:
            switch_to_autocommit(self.connection)

    def close(self) -> None:
        """Close the connection, in whatever state it is."""
        connection, self.connection = self.connection, None
        if connection is None:
            return
        try:
            connection.close()
        except Exception as error:  # noqa: BLE001 - a lost connection cannot say goodbye, and need not
            logger.debug("closing a connection of %s raised %s", self._driver.name, type(error).__name__)

    def lose(self, why: str) -> None:
        """Let the transaction count for nothing: nothing more may be done in it, and it cannot be committed."""
        if self._in_block:
            self._lost = self._lost or why

    def run(self, work: Callable[[], T]) -> T:
        """Run a statement, or what a client does by hand; outside a block it counts by itself."""
        self._check()
        try:
            with self._canceller.cancellable(self.connection):
                result = work()
                if not self._in_block and not self._driver.commits_by_itself:
                    self.connection.commit()
        except BaseException as error:
            self._note_failure(error)
            raise
        finally:
            self._look()
        if self._canceller.asked:
            self._settle()
        return result

    def call(self, fn: Callable[..., T], args: Sequence[Any]) -> T:
        """Run ``fn`` with the driver's connection."""
        return self.run(lambda: fn(self.connection, *args))

    def execute(self, sql: str, params: Parameters) -> int:
        """Run one statement; return how many rows it changed."""
        return self.run(lambda: _statements.execute(self._cursor(), sql, params))

    def fetch_all(self, sql: str, params: Parameters) -> list[Row]:
        """Run one statement; return its rows."""
        return self.run(lambda: _statements.fetch_all(self._cursor(), sql, params))

    def fetch_one(self, sql: str, params: Parameters) -> Row | None:
        """Run one statement; return its first row."""
        return self.run(lambda: _statements.fetch_one(self._cursor(), sql, params))

    def execute_many(self, sql: str, rows: Sequence[Parameters], stopping: Callable[[], bool]) -> int:
        """Run one statement for every one of ``rows``, or for none; return how many rows they changed."""
        if not rows:
            return 0
        if self._is_inside():
            return self._many_inside(lambda: _statements.execute_many(self._cursor(), sql, rows, stopping))
        self.run(lambda: self._begin(None, readonly=False))
        try:
            changed = self.run(lambda: _statements.execute_many(self._cursor(), sql, rows, stopping))
            self.commit()
        except BaseException:
            self._roll_back_quietly()
            raise
        return changed

    def begin(self, isolation: Isolation | None, *, readonly: bool) -> None:
        """Open a transaction."""
        if self._is_inside():
            raise RuntimeError("cannot begin a transaction: one is open on this connection")
        self.run(lambda: self._begin(isolation, readonly=readonly))

    def commit(self) -> None:
        """Commit the transaction; a connection that was lost over it is to be removed.

        Raises:
            TransactionLost: there is none left.
            CommitUnknown: the connection was lost.
        """
        self._check()
        try:
            said = self._command("COMMIT") if self._driver.commits_by_itself else self.connection.commit()
        except BaseException as error:
            if self._survives(error):
                raise
            raise self._driver.complaint(
                CommitUnknown, "the connection was lost in the middle of COMMIT: it may or may not have happened"
            ) from error
        self._leave_block()
        # PostgreSQL answers the COMMIT of a transaction in which a statement had failed with a ROLLBACK, politely.
        if said == "ROLLBACK":
            raise self._driver.complaint(
                TransactionLost, "the transaction was rolled back: one of its statements had failed"
            )

    def rollback(self) -> None:
        """Undo what is open, whoever opened it."""
        try:
            if self._may_be_open():
                self._roll_back()
        finally:
            self._leave_block()

    def reset(self) -> None:
        """Undo what is open; where an error left doubts, see whether the connection still answers."""
        self.rollback()
        if self.verdict is Verdict.RESET:
            self.verdict = Verdict.OK
            self.ping()

    def ping(self) -> None:
        """See whether the database answers."""
        ping = self._driver.ping
        if callable(ping):
            self.call(ping, ())
        else:
            self.fetch_one(ping, ())

    def savepoint(self, name: str) -> None:
        """Set a savepoint; a failure leaves none."""
        self._check()
        try:
            self._command(f"SAVEPOINT {name}")
        except BaseException as error:
            self._note_failure(error)
            raise

    def release(self, name: str) -> None:
        """Give a savepoint up, and keep what was done since."""
        self._check()
        try:
            self._command(f"RELEASE SAVEPOINT {name}")
        except BaseException as error:
            self._note_failure(error)
            raise

    def rollback_to(self, name: str) -> None:
        """Undo what was done since the savepoint, and give it up; where that fails the transaction is lost."""
        try:
            self._command(f"ROLLBACK TO SAVEPOINT {name}")
            self._command(f"RELEASE SAVEPOINT {name}")
        except BaseException as error:
            self.lose("it could not go back to a savepoint")
            self._note_failure(error)
            raise
        finally:
            self._look()

    def start_streaming(self, sql: str, params: Parameters, keep: Callable[[Any], None]) -> None:
        """Open a cursor for a stream, hand it to ``keep``, and run the statement."""
        self._check()
        self._streaming = True
        try:
            with self._canceller.cancellable(self.connection):
                cursor = self._driver.stream_cursor(self.connection)
                keep(cursor)
                _statements.run(cursor, sql, params)
        except BaseException as error:
            self._note_failure(error)
            raise

    def fetch_many(self, cursor: Any, batch: int) -> Sequence[Row]:  # noqa: ANN401
        """Fetch the next rows of a stream."""
        try:
            with self._canceller.cancellable(self.connection):
                return [] if cursor.description is None else list(cursor.fetchmany(batch))
        except BaseException as error:
            self._note_failure(error)
            raise

    def stop_streaming(self, cursor: Any, *, keep: bool) -> None:  # noqa: ANN401
        """Close the cursor of a stream, if it came to having one; ``keep`` says whether what it did counts."""
        self._streaming = False
        try:
            if cursor is not None:
                cursor.close()
            if self._unsettled or self._canceller.asked:
                self._settle()
            if not self._in_block and not self._driver.commits_by_itself:
                (self.connection.commit if keep else self.connection.rollback)()
        except BaseException as error:
            self._note_failure(error)
            raise
        finally:
            self._look()

    def _begin(self, isolation: Isolation | None, *, readonly: bool) -> None:
        statements = self._driver.opening(isolation, readonly=readonly)
        self._in_block = True
        try:
            for sql in statements:
                self._command(sql)
        except BaseException:
            # What came before the last one would linger, and shape the transaction of somebody else.
            if len(statements) > 1:
                self.condemn(Verdict.REMOVE)
            raise

    def _many_inside(self, work: Callable[[], int]) -> int:
        if not self._driver.savepoints:
            try:
                return self.run(work)
            except BaseException:
                self.lose("only some of the rows of execute_many may be in it, and the database has no savepoints")
                raise
        self.savepoint(SAVEPOINT)
        try:
            changed = self.run(work)
            self.release(SAVEPOINT)
        except BaseException:
            # What failed comes out; where this fails as well, the transaction is lost and will say so.
            with suppress(Exception):
                self.rollback_to(SAVEPOINT)
            raise
        return changed

    def _check(self) -> None:
        if self._streaming and self._driver.stream_alone:
            raise RuntimeError("a stream is open on this connection, and this driver has room for one answer at a time")
        if self._lost:
            raise self._driver.complaint(
                TransactionLost, f"the transaction is gone: {self._lost}; leave the block and run it again"
            )

    def _cursor(self) -> Any:  # noqa: ANN401
        return self._driver.cursor(self.connection)

    def _command(self, sql: str) -> str | None:
        return _statements.command(self._cursor(), sql)

    def _is_open(self) -> bool:
        known = self._driver.in_transaction
        return known is not None and bool(known(self.connection))

    def _is_inside(self) -> bool:
        return self._in_block or (self._driver.commits_by_itself and self._is_open())

    def _may_be_open(self) -> bool:
        return self._driver.in_transaction is None or self._is_open()

    def _look(self) -> None:
        """Notice whether a transaction is open, and whether one that should be is not."""
        if self._driver.in_transaction is None:
            self.dirty = self._in_block or self._driver.commits_by_itself
            return
        try:
            is_open = self._is_open()
        except Exception as error:  # noqa: BLE001 - a connection that cannot even say so
            self.condemn(max(Verdict.REMOVE, self._driver.judge(self.connection, error), key=SEVERITY.index))
            return
        if self._was_open and not is_open:
            self.lose("the database rolled it back, or a statement ended it")
        self._was_open = self._in_block and (is_open or self._was_open)
        self.dirty = is_open

    def _note_failure(self, error: BaseException) -> None:
        self.condemn(self._driver.judge(self.connection, error))
        if self.condemned:
            return
        if self._streaming:
            # What settles is a statement, and would be in the stream's way.
            self._unsettled = True
            return
        self._settle()
        if not self._in_block and not self._driver.commits_by_itself:
            self._roll_back_quietly()

    def _settle(self) -> None:
        """Run into what a late cancellation may still have in store, so that the next statement does not."""
        self._unsettled = False
        if self._driver.settle is None:
            return
        for _ in range(ATTEMPTS):
            with suppress(Exception):
                self._driver.settle(self.connection)
                return
        self.condemn(Verdict.REMOVE)

    def _survives(self, error: BaseException) -> bool:
        """Tell whether the connection has survived an error of COMMIT: only then does the error say what happened."""
        self.condemn(self._driver.judge(self.connection, error))
        if self.verdict is Verdict.RESET:
            try:
                self.reset()
            except Exception:  # noqa: BLE001 - that is the answer
                self.condemn(Verdict.REMOVE)
        return self.verdict is Verdict.OK

    def _roll_back(self) -> None:
        if self._driver.rollback is not None:
            self._driver.rollback(self.connection)
        elif self._driver.commits_by_itself:
            self._command("ROLLBACK")
        else:
            self.connection.rollback()

    def _roll_back_quietly(self) -> None:
        try:
            self.rollback()
        except Exception as error:  # noqa: BLE001 - whatever led here comes out, and the connection goes
            logger.debug("ROLLBACK on %s raised %s", self._driver.name, type(error).__name__)
            self.condemn(Verdict.REMOVE)

    def _leave_block(self) -> None:
        self._in_block = self._was_open = False
        self._lost = ""
        self.dirty = False

    def condemn(self, verdict: Verdict) -> None:
        """Let ``verdict`` be the connection's, unless a worse one is."""
        self.verdict = max(self.verdict, verdict, key=SEVERITY.index)
