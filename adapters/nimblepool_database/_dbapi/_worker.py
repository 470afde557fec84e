"""The pool's worker for any PEP 249 driver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from nimblepool_database._worker import DatabaseWorker

from ._driver import Driver, judge_by_name, plain_cursor
from ._resource import DBAPIResource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nimblepool import Reason, Verdict

    from ._driver import Begin

C = TypeVar("C")

DEFAULTS: Final[Mapping[str, Any]] = {"on_open_failure": "wait", "ping_after": 10.0, "ping_timeout": 2.0}
"""A server that restarts is waited for. Only a ping shows that a server has closed an idle connection."""


class DBAPIWorker(DatabaseWorker[DBAPIResource], Generic[C]):
    """Opens, judges and closes connections of a blocking PEP 249 driver, each in a thread of its own.

    ```python
    worker = DBAPIWorker(
        lambda: MySQLdb.connect(host="db", user="app", password=secret),
        autocommit=True,
        cancel=lambda connection: kill_query(connection.thread_id()),
    )
    async with Database(worker, max_size=10) as db:
        rows = await db.fetch_all("SELECT name FROM person WHERE age > %s", (17,))
    ```

    Statements, placeholders (the driver's ``paramstyle``) and rows are the driver's own. Every call of the driver is
    made in the connection's thread, except ``cancel`` and ``sever``.

    A statement outside a transaction counts by itself. In autocommit mode that is the database's doing; in the mode
    that PEP 249 asks for, where a driver begins transactions unasked, ``connection.commit()`` follows each one. Use
    autocommit mode where there is one: it saves the round trip, and lets ``begin`` say what kind of transaction it is.

    A statement that is cancelled is broken off by ``cancel``, again and again until it is; then `trio.Cancelled` comes
    out, and the connection can go on. If the statement has not come back within ``cancel_timeout``, as a driver without
    ``cancel`` may keep it, `trio.Cancelled` comes out nevertheless, the connection is never used again, and its thread
    ends when the driver lets go of it: it may then outlive the pool.

    Args:
        connect: makes a connection. Its errors, and nothing else of it, may appear in logs.
        cancel: breaks off what runs on a connection. It is called in a thread beside, so that it may block, and only
            while the connection is at work; it may fail, and is then called again.
        sever: cuts a connection that does not react to ``cancel`` and is to be closed: shuts its socket down, for
            instance. It is called in trio's thread, perhaps repeatedly, and must not block.
        in_transaction: tells whether a transaction is open, without asking the server. Without it every connection that
            was used is rolled back when it comes back, and a transaction that the database ended by itself (MySQL does
            so on a deadlock) is not noticed; in autocommit mode the database must then accept a ROLLBACK without a
            transaction, or there must be a ``rollback`` that is right in any case.
        autocommit: ``True`` switches autocommit mode on through the connection's attribute or method of that name; a
            function is called with each new connection, and does it another way, or nothing if ``connect`` has.
        begin: the statement that opens a transaction, or ``begin(isolation, readonly)``, which returns those that do.
            By default it is ``"BEGIN"`` in autocommit mode, and nothing else; there are then neither isolation levels
            nor read-only transactions.
        rollback: undoes whatever is open. By default it is ``ROLLBACK`` in autocommit mode, ``connection.rollback()``
            else.
        savepoints: whether the database has them. Without, a transaction inside another one is `Unsupported`.
        cursor: makes a cursor; by default ``connection.cursor()``.
        stream_cursor: makes the cursor of a stream: one that does not fetch everything at once. By default, the same.
        stream_alone: whether a connection can do nothing else while a stream is open.
        settle: a cheap statement, run after one that failed or was cancelled: it runs into a cancellation that came too
            late, and tells the driver the state that the connection is in.
        ping: a statement, or a function of the connection, that fails if the connection is dead.
        judge: ``judge(connection, error)`` says what an error means for its connection: ``OK``, ``RESET`` (it is
            pinged when it comes back), ``REMOVE``, or ``REFRESH`` (every connection is replaced). By default an
            ``InterfaceError`` removes, and an ``OperationalError`` resets.
        error: the driver's ``OperationalError``, or another class that the errors of this package should inherit.
        commit_timeout: seconds that a COMMIT or ROLLBACK, which no cancellation cuts short, may take.
        cancel_timeout: seconds that a cancelled statement may take to end; see above.
        name: of the database, for errors and threads. No secrets.

    Raises:
        ValueError: an option that is out of range; the text says what is allowed.
    """

    def __init__(
        self,
        connect: Callable[[], C],
        *,
        cancel: Callable[[C], object] | None = None,
        sever: Callable[[C], object] | None = None,
        in_transaction: Callable[[C], bool] | None = None,
        autocommit: bool | Callable[[C], object] = False,
        begin: str | Begin | None = None,
        rollback: Callable[[C], object] | None = None,
        savepoints: bool = True,
        cursor: Callable[[C], Any] | None = None,
        stream_cursor: Callable[[C], Any] | None = None,
        stream_alone: bool = False,
        settle: Callable[[C], object] | None = None,
        ping: str | Callable[[C], object] = "SELECT 1",
        judge: Callable[[C, BaseException], Verdict] | None = None,
        error: type[Exception] | None = None,
        commit_timeout: float = 10.0,
        cancel_timeout: float = 5.0,
        name: str = "database",
    ) -> None:
        self.database = name
        self._driver = Driver(
            connect=connect,
            cancel=cancel,
            sever=sever,
            in_transaction=in_transaction,
            autocommit=autocommit,
            begin=begin,
            rollback=rollback,
            savepoints=savepoints,
            cursor=cursor or plain_cursor,
            stream_cursor=stream_cursor or cursor or plain_cursor,
            stream_alone=stream_alone,
            settle=settle,
            ping=ping,
            judge=judge or judge_by_name,
            error=error,
            commit_timeout=commit_timeout,
            cancel_timeout=cancel_timeout,
            name=name,
        )

    def pool_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Add a server's defaults: ``on_open_failure="wait"``, ``ping_after=10.0``, ``ping_timeout=2.0``."""
        return {**DEFAULTS, **given}

    async def init(self) -> DBAPIResource:
        """Open one connection."""
        return await DBAPIResource.open(self._driver)

    async def terminate(self, resource: DBAPIResource, reason: Reason) -> None:
        """Close the connection, and end its thread."""
        await resource.close()

    def checkin(self, resource: DBAPIResource, error: BaseException | None) -> Verdict:
        """Judge the connection by what it went through, whatever the client's error was."""
        return resource.verdict

    async def reset(self, resource: DBAPIResource) -> None:
        """Roll back what a client left open; ping a connection that is in doubt."""
        await resource.reset()

    async def ping(self, resource: DBAPIResource) -> None:
        """See whether the database answers."""
        await resource.ping()


class FileWorker(DBAPIWorker[C]):
    """The worker for a database that is a file: where that cannot be opened, waiting does not help."""

    def pool_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Add nothing."""
        return dict(given)


class OneConnectionWorker(DBAPIWorker[C]):
    """The worker for a database that lives in its one connection: in memory."""

    def pool_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Keep the database in its connection."""
        options = {"max_size": 1, **given}
        ends = [name for name in ("max_age", "max_idle", "max_uses") if options.get(name) is not None]
        wrong = ends if options["max_size"] == 1 else ["max_size", *ends]
        if wrong:
            raise ValueError(
                f"{', '.join(wrong)}: an in-memory database lives and dies with its connection, so max_size must be 1, "
                "and max_age, max_idle and max_uses None; use a file to have several connections"
            )
        return options
