import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from nimblepool import Verdict, open_pool
from nimblepool_database import Database
from nimblepool_database._dbapi import _import
from nimblepool_database._dbapi._driver import judge_by_name
from nimblepool_database._dbapi._duckdb import duckdb_worker
from nimblepool_database._dbapi._psycopg import psycopg_worker
from nimblepool_database._dbapi._pymysql import pymysql_worker
from nimblepool_database._dbapi._sqlite3 import sqlite3_worker
from nimblepool_database._dbapi._urls import duckdb_from_url, mysql_from_url
from nimblepool_database._dbapi._worker import DBAPIWorker
from tests.database.dbapi import slow as driver


def worker(slow: driver.Database, **options: Any) -> DBAPIWorker[driver.Connection]:  # noqa: ANN401
    return DBAPIWorker(slow.connect, error=driver.OperationalError, name="slow", **options)


def test_errors_are_judged_by_the_names_of_pep_249() -> None:
    assert judge_by_name(None, driver.InterfaceError()) is Verdict.REMOVE
    assert judge_by_name(None, sqlite3.OperationalError()) is Verdict.RESET
    assert judge_by_name(None, sqlite3.IntegrityError()) is Verdict.OK
    assert judge_by_name(None, ValueError()) is Verdict.OK


async def test_autocommit_is_switched_on_by_attribute_or_method() -> None:
    class WithAttribute(driver.Connection):
        autocommit = False

    class WithMethod(driver.Connection):
        switched = False

        def autocommit(self, value: bool) -> None:
            self.check("autocommit")
            self.switched = value

    made: list[Any] = []
    for kind in (WithAttribute, WithMethod):

        def connect(kind: type[driver.Connection] = kind) -> driver.Connection:
            connection = kind(driver.Database())
            made.append(connection)
            return connection

        one = DBAPIWorker(connect, autocommit=True)
        async with open_pool(one) as pool, pool.checkout() as lease:
            await lease.resource.begin()
            await lease.resource.commit()
        assert "BEGIN" in made[-1].calls
        assert "COMMIT" in made[-1].calls
    assert made[0].autocommit is True
    assert made[1].switched is True


async def test_autocommit_that_a_driver_does_not_have_is_an_error(slow: driver.Database) -> None:
    with pytest.raises(TypeError, match="pass a function"):
        await worker(slow, autocommit=True).init()
    assert slow.connections[0].closed


def test_options_are_validated(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"commit_timeout must be more than 0 seconds"):
        DBAPIWorker(lambda: sqlite3.connect(tmp_path / "x"), commit_timeout=0)
    with pytest.raises(ValueError, match=r"cancel_timeout must be more than 0 seconds"):
        DBAPIWorker(lambda: sqlite3.connect(tmp_path / "x"), cancel_timeout=-1)
    with pytest.raises(TypeError, match="function"):
        DBAPIWorker("app.db")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    for make in (
        lambda: sqlite3_worker(tmp_path / "x", isolation_level="DEFERRED"),
        lambda: psycopg_worker(autocommit=False),
        lambda: pymysql_worker(autocommit=False),
    ):
        with pytest.raises(ValueError, match="leave it out"):
            make()


def test_a_missing_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ModuleNotFoundError, match="pip install duckdb"):
        duckdb_worker(":memory:")
    with pytest.raises(ModuleNotFoundError, match="no_such_driver"):
        _import.driver("no_such_driver", "no-such-driver")


async def test_urls(tmp_path: Path) -> None:
    async with Database(duckdb_from_url(f"duckdb:///{tmp_path}/a%3Fb.db")) as db:
        assert await db.fetch_value("SELECT 1") == 1
    assert (tmp_path / "a?b.db").exists()
    async with Database(duckdb_from_url(f"duckdb:///{tmp_path}/a%3Fb.db?read_only=on")) as db:
        with pytest.raises(Exception, match="read-only"):
            await db.execute("CREATE TABLE t (n int)")
    for url, words in {
        "duckdb:a.db": "a DuckDB URL is",
        "duckdb:///a.db?threads=1": "read_only, not 'threads'",
        "duckdb:///a.db?read_only=maybe": "must be one of on",
    }.items():
        with pytest.raises(ValueError, match=words):
            duckdb_from_url(url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql:///db", "has no host"),
        ("mysql://me:hunter2@host:hunter2/db", "port of this one is not a number"),
        ("mysql://me:hunter2@host/db?ssl=1", "has the options charset"),
        ("mysql://me:12/hunter2@host/db", "cannot be read"),
        ("mysql://me:12?hunter2=1@host/db", "cannot be read"),
        ("mysql://me:12#hunter2@host/db", "cannot be read"),
        ("mysql://me:[hunter2]@host/db", "cannot be read"),
        ("mysql://me:\u2100hunter2@host/db", "cannot be read"),
        ("mysql://me:hunter2@host/db?read_timeout=soon", "number of seconds"),
    ],
)
def test_mysql_urls_that_make_no_sense(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        mysql_from_url(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_password_is_in_no_error_and_no_repr() -> None:
    for url in ("postgresql://me:hunter2%zz@host/db", "postgresql://me:p@hunter2@host/db"):
        with pytest.raises(ValueError, match=r"special characters|%40") as caught:
            psycopg_worker(url)
        assert "hunter2" not in str(caught.value)
    for made in (
        mysql_from_url("mysql://me:hunter2@host/db"),
        psycopg_worker("postgresql://me:hunter2@host/db"),
        pymysql_worker(password="hunter2"),
    ):
        assert "hunter2" not in repr(made)
        assert "hunter2" not in repr(made._driver)
        assert "hunter2" not in repr(Database(made))
