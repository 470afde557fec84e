"""Databases for trio, pooled: ``async with Database("sqlite:///app.db") as db``."""

from ._connection import Connection
from ._database import Database
from ._errors import CommitUnknown, TransactionLost
from ._resource import DatabaseResource, Parameters, Row
from ._sqlite._errors import SQLiteBusy, SQLiteCommitUnknown, SQLiteTransactionLost
from ._sqlite._resource import SQLiteResource
from ._sqlite._worker import SQLiteWorker
from ._worker import DatabaseWorker

__all__ = [
    "CommitUnknown",
    "Connection",
    "Database",
    "DatabaseResource",
    "DatabaseWorker",
    "Parameters",
    "Row",
    "SQLiteBusy",
    "SQLiteCommitUnknown",
    "SQLiteResource",
    "SQLiteTransactionLost",
    "SQLiteWorker",
    "TransactionLost",
]
