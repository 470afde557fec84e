"""Databases for trio, pooled: ``async with Database("sqlite:///app.db") as db``."""

from typing import TYPE_CHECKING

from ._connection import Connection
from ._database import Database
from ._dbapi._duckdb import duckdb_worker
from ._dbapi._psycopg import psycopg_worker
from ._dbapi._pymysql import pymysql_worker
from ._dbapi._sqlite3 import sqlite3_worker
from ._dbapi._worker import DBAPIWorker
from ._errors import CommitUnknown, TransactionLost, Unsupported
from ._lazy import __dir__ as __dir__
from ._lazy import __getattr__ as __getattr__
from ._resource import DatabaseResource, Isolation, Parameters, Row
from ._sqlite._errors import SQLiteBusy, SQLiteCommitUnknown, SQLiteTransactionLost
from ._sqlite._resource import SQLiteResource
from ._sqlite._worker import SQLiteWorker
from ._worker import DatabaseWorker

if TYPE_CHECKING:
    from ._postgres._errors import PostgresCommitUnknown as PostgresCommitUnknown
    from ._postgres._errors import PostgresTransactionLost as PostgresTransactionLost
    from ._postgres._resource import PostgresResource as PostgresResource
    from ._postgres._trio_connection import TrioConnection as TrioConnection
    from ._postgres._worker import PostgresWorker as PostgresWorker

__all__ = [
    "CommitUnknown",
    "Connection",
    "DBAPIWorker",
    "Database",
    "DatabaseResource",
    "DatabaseWorker",
    "Isolation",
    "Parameters",
    "Row",
    "SQLiteBusy",
    "SQLiteCommitUnknown",
    "SQLiteResource",
    "SQLiteTransactionLost",
    "SQLiteWorker",
    "TransactionLost",
    "Unsupported",
    "duckdb_worker",
    "psycopg_worker",
    "pymysql_worker",
    "sqlite3_worker",
]
