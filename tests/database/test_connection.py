import sqlite3

import pytest

from nimblepool import LeaseExpired, PoolClosed
from nimblepool_database import Connection, Database


async def test_what_goes_in_comes_out(url: str) -> None:
    row = (1, 2.5, "žluťoučký \0 kůň", b"\x00\xff", None, -(2**63))
    async with Database(url) as db:
        await db.execute("CREATE TABLE t (a, b, c, d, e, f)")
        assert await db.execute("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?)", row) == 1
        assert await db.fetch_all("SELECT * FROM t") == [row]
        assert await db.fetch_one("SELECT * FROM t") == row
        assert await db.fetch_value("SELECT c FROM t") == row[2]
    async with Database(url) as db:
        assert await db.fetch_all("SELECT * FROM t") == [row]


async def test_parameters_by_order_and_by_name(url: str) -> None:
    async with Database(url) as db:
        assert await db.fetch_one("SELECT ?, ?", ["a", 2]) == ("a", 2)
        assert await db.fetch_one("SELECT :b, :a", {"a": 1, "b": 2}) == (2, 1)


async def test_an_answer_without_rows(url: str) -> None:
    async with Database(url) as db:
        await db.execute("CREATE TABLE t (a)")
        assert await db.fetch_all("SELECT * FROM t") == []
        assert await db.fetch_all("DELETE FROM t") == []
        assert await db.fetch_one("SELECT * FROM t") is None
        assert await db.fetch_value("SELECT a FROM t") is None


async def test_execute_counts_changed_rows(url: str) -> None:
    async with Database(url) as db:
        assert await db.execute("CREATE TABLE t (a)") == 0
        assert await db.execute("INSERT INTO t VALUES (1), (2), (3)") == 3
        assert await db.execute("INSERT INTO t VALUES (4), (5) RETURNING a") == 2
        assert await db.execute("UPDATE t SET a = a + 1 WHERE a > 3") == 2
        assert await db.execute("SELECT * FROM t") == 0
        assert await db.execute("DELETE FROM t") == 5


async def test_execute_many_is_all_or_none(url: str) -> None:
    async with Database(url) as db:
        await db.execute("CREATE TABLE t (a INTEGER PRIMARY KEY)")
        assert await db.execute_many("INSERT INTO t VALUES (?)", ((n,) for n in range(100))) == 100
        with pytest.raises(sqlite3.IntegrityError):
            await db.execute_many("INSERT INTO t VALUES (?)", [(200,), (201,), (1,), (202,)])
        assert await db.fetch_value("SELECT count(*) FROM t") == 100
        async with db.transaction() as conn:
            await conn.execute("INSERT INTO t VALUES (300)")
            with pytest.raises(sqlite3.IntegrityError):
                await conn.execute_many("INSERT INTO t VALUES (?)", [(400,), (1,)])
            assert await conn.execute_many("INSERT INTO t VALUES (:n)", [{"n": 500}]) == 1
        assert await db.fetch_all("SELECT a FROM t WHERE a > 100") == [(300,), (500,)]


async def test_fetch_one_leaves_no_statement_half_done(url: str) -> None:
    async with Database(url) as db:
        await db.execute("CREATE TABLE t (a INTEGER PRIMARY KEY)")
        assert await db.fetch_one("INSERT INTO t VALUES (1), (2) RETURNING a") == (1,)
        assert await db.fetch_value("SELECT count(*) FROM t") == 2
        async with db.connection() as conn:
            assert await conn.fetch_one("SELECT a FROM t") == (1,)
            # An open cursor would pin the log: the checkpoint would be "busy", its first column 1.
            async with db.connection() as other:
                await other.execute("INSERT INTO t VALUES (3)")
                assert await other.fetch_value("PRAGMA wal_checkpoint(TRUNCATE)") == 0


async def test_fetch_one_reports_what_goes_wrong_after_the_first_row(url: str) -> None:
    async with Database(url) as db:
        await db.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
        await db.execute("CREATE TABLE child (id REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
        with pytest.raises(sqlite3.IntegrityError):
            await db.fetch_one("WITH x(i) AS (VALUES (7), (8)) INSERT INTO child SELECT i FROM x RETURNING id")
        assert await db.fetch_all("SELECT * FROM child") == []


async def test_the_drivers_errors_come_out_as_they_are(url: str) -> None:
    async with Database(url, max_size=1) as db:
        with pytest.raises(sqlite3.OperationalError, match="no such table") as caught:
            await db.execute("INSERT INTO nowhere VALUES (1)")
        assert type(caught.value) is sqlite3.OperationalError
        with pytest.raises(sqlite3.ProgrammingError):
            await db.execute("SELECT ?", (1, 2))
        with pytest.raises((sqlite3.InterfaceError, sqlite3.ProgrammingError)):
            await db.execute("SELECT ?", (object(),))
        with pytest.raises((sqlite3.Warning, sqlite3.ProgrammingError)):
            await db.execute("SELECT 1; SELECT 2")
        # None of these is the connection's fault.
        assert (db.stats.opened, db.stats.closed) == (1, 0)


async def test_foreign_keys_and_the_log_are_on(url: str) -> None:
    async with Database(url) as db:
        assert await db.fetch_value("PRAGMA foreign_keys") == 1
        assert await db.fetch_value("PRAGMA journal_mode") == "wal"
    async with Database(url + "?foreign_keys=off&journal_mode=delete") as db:
        assert await db.fetch_value("PRAGMA foreign_keys") == 0
        assert await db.fetch_value("PRAGMA journal_mode") == "delete"


async def test_call_reaches_the_driver_in_its_thread(url: str) -> None:
    def define(raw: sqlite3.Connection, name: str) -> str:
        raw.create_function(name, 1, lambda text: text[::-1])
        return name

    async with Database(url, max_size=1) as db, db.connection() as conn:
        assert isinstance(conn.raw, sqlite3.Connection)
        assert await conn.call(define, "mirror") == "mirror"
        assert await conn.fetch_value("SELECT mirror('abc')") == "cba"
        with pytest.raises(sqlite3.ProgrammingError, match="thread"):
            conn.raw.execute("SELECT 1")


async def test_a_connection_refuses_after_its_lease(url: str) -> None:
    async with Database(url) as db:
        kept: list[Connection] = []
        async with db.connection() as conn:
            kept.append(conn)
        async with db.transaction() as conn:
            kept.append(conn)
        for conn in kept:
            attempts = [
                conn.execute("SELECT 1"),
                conn.execute_many("SELECT 1", []),
                conn.fetch_all("SELECT 1"),
                conn.fetch_one("SELECT 1"),
                conn.fetch_value("SELECT 1"),
                conn.call(repr),
            ]
            for attempt in attempts:
                with pytest.raises(LeaseExpired):
                    await attempt
            with pytest.raises(LeaseExpired):
                _ = conn.raw


async def test_outside_its_block_the_database_refuses(url: str) -> None:
    db = Database(url)
    with pytest.raises(PoolClosed, match="async with"):
        await db.execute("SELECT 1")
    async with db:
        await db.execute("SELECT 1")
        with pytest.raises(RuntimeError, match="open already"):
            await db.__aenter__()
    with pytest.raises(PoolClosed):
        await db.execute("SELECT 1")
    assert db.stats.size == 0
    async with db:
        assert await db.fetch_value("SELECT 1") == 1
