"""The pool's worker for SQLite."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from nimblepool import Reason, Verdict
from nimblepool_database._worker import DatabaseWorker

from ._file import SQLiteFile
from ._options import FORMS, SQLiteOptions, parse_url
from ._resource import SQLiteResource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._options import RowFactory

IN_MEMORY = ":memory:"
DEFAULT_SIZE = 4
"""Connections at most, unless the user says otherwise: one writer, and as many readers as the interpreter can feed."""


@final
class SQLiteWorker(DatabaseWorker[SQLiteResource]):
    """Opens, judges and closes connections to one SQLite file; for `Database`, or alone for `nimblepool.open_pool`.

    Args:
        path: the file, made if it is missing; a relative one is taken from the present working directory, once.
            ``":memory:"`` is a database that each connection has to itself, so its pool has one.
        busy_timeout: seconds that a statement or transaction waits for its turn among this pool's writers, and again
            for a lock that somebody outside holds; then "database is locked" comes out.
        commit_timeout: seconds that a COMMIT or ROLLBACK, which no cancellation cuts short, may take.
        journal_mode: ``"wal"`` lets readers and a writer work at the same time, and stays a property of the file;
            ``None`` leaves the file as it is. SQLite keeps the old mode where it must (in memory, for instance).
        foreign_keys: whether foreign keys are enforced.
        row_factory: what makes rows, as in `sqlite3`: ``sqlite3.Row``, for instance; tuples by default. What a client
            sets on the raw connection ends with its lease.

    Raises:
        ValueError: an option that is out of range; the text says what is allowed.
    """

    database = "SQLite"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        busy_timeout: float = 5.0,
        commit_timeout: float = 10.0,
        journal_mode: str | None = "wal",
        foreign_keys: bool = True,
        row_factory: RowFactory | None = None,
    ) -> None:
        options = SQLiteOptions(
            busy_timeout=busy_timeout,
            commit_timeout=commit_timeout,
            journal_mode=journal_mode,
            foreign_keys=foreign_keys,
            row_factory=row_factory,
        )
        self._file = SQLiteFile(_absolute(os.fspath(path)), options)

    @classmethod
    def from_url(cls, url: str) -> SQLiteWorker:
        """Make the worker for ``sqlite:///relative.db``, ``sqlite:////absolute/path.db`` or ``sqlite:///:memory:``.

        The worker's options may follow: ``sqlite:///app.db?busy_timeout=2.5&foreign_keys=off``. A ``?`` or ``%`` in
        the file's name is written ``%3F`` or ``%25``.

        Raises:
            ValueError: the URL has another form, or an option that does not exist or is out of range.
        """
        path, options = parse_url(url)
        return cls(path, **options)

    def pool_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Add SQLite's defaults; keep an in-memory database in the one connection that it lives in."""
        if self._file.path != IN_MEMORY:
            return {"max_size": DEFAULT_SIZE, **given}
        options = {"max_size": 1, **given}
        ends = [name for name in ("max_age", "max_idle", "max_uses") if options.get(name) is not None]
        wrong = ends if options["max_size"] == 1 else ["max_size", *ends]
        if wrong:
            raise ValueError(
                f"{', '.join(wrong)}: an in-memory database lives and dies with its connection, so max_size must be 1, "
                "and max_age, max_idle and max_uses None; use a file to have several connections"
            )
        return options

    def reader(self) -> SQLiteWorker | None:
        """Let this worker serve the readers, too: its connections know of each other's turns to write."""
        return None if self._file.path == IN_MEMORY else self

    async def init(self) -> SQLiteResource:
        """Open one connection."""
        return await SQLiteResource.open(self._file)

    async def terminate(self, resource: SQLiteResource, reason: Reason) -> None:
        """Close the connection, and end its thread."""
        await resource.close()

    def checkin(self, resource: SQLiteResource, error: BaseException | None) -> Verdict:
        """Keep a healthy connection whatever the client's error was: what the connection went through, it knows."""
        if not resource.healthy:
            return Verdict.REMOVE
        resource.restore_row_factory()
        return Verdict.RESET if resource.in_use else Verdict.OK

    async def reset(self, resource: SQLiteResource) -> None:
        """Roll back the transaction, and close the streams, that a client left open."""
        await resource.reset()

    async def ping(self, resource: SQLiteResource) -> None:
        """Read from the database file."""
        await resource.fetch_one("PRAGMA schema_version")


def _absolute(path: str) -> str:
    if not path:
        raise ValueError(f"a SQLite database needs a path: {FORMS}")
    return path if path == IN_MEMORY else str(Path(path).absolute())
