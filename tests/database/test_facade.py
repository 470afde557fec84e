import sqlite3
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from nimblepool import LeaseExpired, PoolObserver
from nimblepool.testing import check_balance, sweep
from nimblepool_database import Connection, Database, SQLiteWorker, TransactionLost, Unsupported

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

INCREMENT = "UPDATE tally SET n = n + 1"
NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) SELECT i FROM n"
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


async def total(db: Database) -> object:
    return await db.fetch_value("SELECT sum(n) FROM tally")


# Both databases.


async def test_statements_in_every_form(db_url: str) -> None:
    async with Database(db_url) as db:
        assert await db.execute("CREATE TABLE t (a INTEGER)") == 0
        assert await db.execute("INSERT INTO t VALUES (1), (2)") == 2
        assert await db.fetch_all("SELECT a FROM t ORDER BY a") == [(1,), (2,)]
        assert await db.fetch_one("SELECT a FROM t ORDER BY a") == (1,)
        assert await db.fetch_value("SELECT a FROM t ORDER BY a DESC") == 2
        assert await db.fetch_value("SELECT a FROM t WHERE a = 7") is None
        assert await db.fetch_value("INSERT INTO t VALUES (3) RETURNING a") == 3
        assert await db.fetch_value("SELECT sum(a) FROM t") == 6


async def test_a_failed_inner_block_takes_only_itself_back(db_counter: str) -> None:
    async with Database(db_counter) as db:
        async with db.transaction() as conn:
            await conn.execute(INCREMENT)
            with pytest.raises(KeyError):
                async with conn.transaction() as inner:
                    assert inner is conn
                    await conn.execute("UPDATE tally SET n = n + 10")
                    async with conn.transaction():
                        await conn.execute("UPDATE tally SET n = n + 100")
                    raise KeyError
            async with conn.transaction():
                await conn.execute("UPDATE tally SET n = n + 1000")
        assert await total(db) == 1001


async def test_a_statement_that_failed_in_an_inner_block_does_not_spoil_the_outer_one(db_counter: str) -> None:
    async with Database(db_counter) as db:
        async with db.transaction() as conn:
            await conn.execute(INCREMENT)
            with pytest.raises(Exception, match="nowhere"):
                async with conn.transaction():
                    await conn.execute(INCREMENT)
                    await conn.execute("INSERT INTO nowhere VALUES (1)")
            await conn.execute("UPDATE tally SET n = n + 10")
        assert await total(db) == 11


async def test_an_inner_block_that_was_cancelled_takes_only_itself_back(db_counter: str) -> None:
    async with Database(db_counter) as db:
        async with db.transaction() as conn:
            await conn.execute(INCREMENT)
            with trio.move_on_after(0.02) as scope:
                async with conn.transaction():
                    await conn.execute("UPDATE tally SET n = n + 10")
                    await conn.fetch_all(ENDLESS)
            assert scope.cancelled_caught
            await conn.execute("UPDATE tally SET n = n + 100")
        assert await total(db) == 101


async def test_an_inner_block_that_cannot_be_undone_takes_the_outer_one_with_it(db_counter: str) -> None:
    async with Database(db_counter) as db:
        with pytest.raises(TransactionLost):
            async with db.transaction() as conn:
                with pytest.raises(KeyError):
                    async with conn.transaction():
                        await conn.execute(INCREMENT)
                        await conn.execute("RELEASE SAVEPOINT nimblepool_1")
                        raise KeyError
                with pytest.raises(TransactionLost):
                    await conn.execute(INCREMENT)
        assert await total(db) == 0
        await db.execute(INCREMENT)
        assert await total(db) == 1


async def test_tasks_that_open_transactions_on_one_connection_at_once_are_told(db_counter: str) -> None:
    async def open_one(conn: Connection) -> None:
        async with conn.transaction():
            await trio.sleep_forever()

    async with Database(db_counter) as db, db.connection() as conn:
        with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="just opening a transaction")):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(open_one, conn)
                nursery.start_soon(open_one, conn)
        assert await conn.fetch_value("SELECT n FROM tally") == 0


async def test_a_transaction_whose_neighbour_still_runs_a_statement_is_undone_all_the_same(counter: str) -> None:
    async with Database(counter, max_size=1) as db, db.connection() as conn:
        async with trio.open_nursery() as nursery:
            with pytest.raises(KeyError):
                async with conn.transaction():
                    await conn.execute(INCREMENT)
                    nursery.start_soon(conn.fetch_all, NUMBERS.replace("1000", "200000"))
                    await trio.testing.wait_all_tasks_blocked(0.001)
                    raise KeyError
        async with conn.transaction():
            assert await conn.fetch_value("SELECT n FROM tally") == 0
        assert db.stats.opened == 1


async def test_on_a_connection_without_a_transaction_a_real_one_is_opened(db_counter: str) -> None:
    async with Database(db_counter) as db, db.connection() as conn:
        for expected in (0, 1):
            async with conn.transaction():
                await conn.execute(INCREMENT)
                assert await total(db) == expected
        with pytest.raises(KeyError):
            async with conn.transaction():
                await conn.execute(INCREMENT)
                raise KeyError
        assert await conn.fetch_value("SELECT n FROM tally") == 2


async def test_isolation_and_readonly_belong_to_the_outermost_transaction(db_counter: str) -> None:
    async with Database(db_counter) as db:
        async with db.transaction(isolation="serializable") as conn:
            for inner in (conn.transaction(isolation="serializable"), conn.transaction(readonly=True)):
                with pytest.raises(ValueError, match="outermost"):
                    async with inner:
                        pass
        nonsense: Any = "snapshot"
        with pytest.raises(ValueError, match="'repeatable read', 'serializable', or None"):
            async with db.transaction(isolation=nonsense):
                pass
        check_balance(db.pool)


async def test_a_transaction_that_only_reads_refuses_to_write_and_the_next_one_may(db_counter: str) -> None:
    async with Database(db_counter, max_size=1) as db:
        for _ in range(2):
            with pytest.raises(Exception, match=r"readonly|read-only"):
                async with db.transaction(readonly=True) as conn:
                    assert await conn.fetch_value("SELECT n FROM tally") is not None
                    await conn.execute(INCREMENT)
            await db.execute(INCREMENT)
            async with db.transaction(readonly=True) as conn:
                assert await conn.fetch_value("SELECT n FROM tally") is not None
            await db.execute(INCREMENT)
        assert await total(db) == 4
        assert db.stats.opened == 1


async def test_tasks_that_share_a_connection_must_not_end_their_transactions_crosswise(db_counter: str) -> None:
    async with Database(db_counter) as db:
        stack = AsyncExitStack()
        with pytest.raises(RuntimeError, match="give each task a connection of its own"):
            async with db.transaction() as conn:
                await stack.enter_async_context(conn.transaction())
                await conn.execute(INCREMENT)
        with pytest.raises(TransactionLost, match="around this one has ended"):
            await stack.aclose()
        assert await total(db) == 0
        check_balance(db.pool)


async def test_a_stream_reads_as_much_as_it_is_asked_for(db_url: str) -> None:
    async with Database(db_url) as db:
        for batch in (1, 7, 500, 1000, 5000):
            async with db.stream(NUMBERS, batch=batch) as rows:
                assert [row async for row in rows] == [(n,) for n in range(1, 1001)]
        async with db.connection() as conn:
            async with conn.stream(NUMBERS, batch=10) as rows:
                assert await anext(rows) == (1,)
            assert await conn.fetch_value("SELECT 1") == 1
        with pytest.raises(ValueError, match="batch must be at least 1"):
            async with db.stream(NUMBERS, batch=0):
                pass
        check_balance(db.pool)


async def test_a_stream_refuses_after_its_block(db_url: str) -> None:
    async with Database(db_url) as db:
        async with db.stream(NUMBERS, batch=10) as lent:
            await anext(lent)
        with pytest.raises(LeaseExpired):
            await anext(lent)
        async with db.connection() as conn:
            async with conn.stream(NUMBERS, batch=10) as rows:
                await anext(rows)
            with pytest.raises(LeaseExpired):
                await anext(rows)


async def test_a_connection_refuses_after_its_lease(db_url: str) -> None:
    async with Database(db_url) as db:
        kept: list[Connection] = []
        async with db.connection() as conn:
            kept.append(conn)
        async with db.transaction(readonly=True) as conn:
            kept.append(conn)

        async def enter(manager: AbstractAsyncContextManager[object]) -> None:
            async with manager:
                pass

        for conn in kept:
            attempts: list[Callable[[], Awaitable[object]]] = [
                partial(conn.execute, "SELECT 1"),
                partial(conn.execute_many, "SELECT 1", []),
                partial(conn.fetch_all, "SELECT 1"),
                partial(conn.fetch_one, "SELECT 1"),
                partial(conn.fetch_value, "SELECT 1"),
                partial(conn.call, repr),
                lambda conn=conn: enter(conn.stream("SELECT 1")),  # type: ignore[misc]
                lambda conn=conn: enter(conn.transaction()),  # type: ignore[misc]
                lambda conn=conn: enter(conn.copy("SELECT 1")),  # type: ignore[misc]
                lambda conn=conn: enter(conn.pipeline()),  # type: ignore[misc]
            ]
            for attempt in attempts:
                with pytest.raises(LeaseExpired):
                    await attempt()
            with pytest.raises(LeaseExpired):
                _ = conn.raw


async def test_a_cancelled_stream_leaves_a_connection_that_answers(db_url: str) -> None:
    async with Database(db_url, max_size=1) as db:

        async def use() -> None:
            async with db.connection() as conn, conn.stream(NUMBERS, batch=400) as rows:
                assert [row async for row in rows][-1] == (1000,)

        async def check() -> None:
            async with db.transaction() as conn:
                assert await conn.fetch_all("SELECT 42") == [(42,)]
            check_balance(db.pool)

        await db.fetch_value("SELECT 1")
        assert await sweep(use, check) > 5
        assert db.stats.size == 1


async def test_cancelled_at_any_moment_a_transaction_happens_wholly_or_not_at_all(db_counter: str) -> None:
    done = 0
    async with Database(db_counter, max_size=2) as db:

        async def use() -> None:
            nonlocal done
            async with db.transaction() as conn:
                await conn.execute(INCREMENT)
                async with conn.transaction():
                    await conn.execute("UPDATE tally SET n = n + 10")
                with trio.CancelScope():
                    async with conn.transaction():
                        await conn.execute("UPDATE tally SET n = n + 100")
            done += 111

        async def check() -> None:
            assert await total(db) == done

        await check()
        assert await sweep(use, check) > 5
        check_balance(db.pool)
        check_balance(db.writer_pool)


# SQLite: one writer, and readers.


async def test_one_connection_is_set_aside_for_writing(counter: str) -> None:
    async with Database(counter, max_size=3) as db:
        assert (db.writer_pool.stats.max_size, db.pool.stats.max_size) == (1, 2)
        assert db.reader_pool is db.pool is not db.writer_pool
        assert db.stats.max_size == 3
        writer = db.writer_pool.stats.started
        reader = db.pool.stats.started
        await db.execute(INCREMENT)
        await db.execute_many(INCREMENT, [(), ()])
        async with db.transaction() as conn:
            await conn.execute(INCREMENT)
        assert (db.writer_pool.stats.started - writer, db.pool.stats.started - reader) == (3, 0)
        assert await total(db) == 4
        await db.fetch_all("SELECT 1")
        await db.fetch_one("SELECT 1")
        async with db.connection(), db.stream("SELECT 1"):
            pass
        async with db.transaction(readonly=True):
            pass
        assert (db.writer_pool.stats.started - writer, db.pool.stats.started - reader) == (3, 6)
        stats = db.stats
        assert stats.balanced
        assert stats.started == db.writer_pool.stats.started + db.pool.stats.started
        assert stats.opened == db.writer_pool.stats.opened + db.pool.stats.opened
        check_balance(db.pool)
        check_balance(db.writer_pool)


@pytest.mark.parametrize(("least", "shares"), [(0, (0, 0)), (1, (0, 1)), (3, (0, 3)), (4, (1, 3))])
async def test_the_smallest_number_of_connections_is_the_readers_first(
    url: str, least: int, shares: tuple[int, int]
) -> None:
    async with Database(url, min_size=least, max_size=4) as db:
        assert (db.writer_pool.stats.min_size, db.pool.stats.min_size) == shares


async def test_with_one_connection_there_is_one_pool(url: str) -> None:
    async with Database(url, max_size=1) as db:
        assert db.pool is db.writer_pool is db.reader_pool
        assert db.stats == db.pool.stats
    async with Database("sqlite:///:memory:") as db:
        assert db.pool is db.writer_pool is db.reader_pool


async def test_both_pools_have_the_options_and_names_of_their_own(url: str) -> None:
    class Counting(PoolObserver):
        opened = 0

        def open(self, pool: str, took: float) -> None:
            self.opened += 1

    observer = Counting()
    async with Database(url, name="app", observers=(each for each in [observer]), max_waiting=7) as db:
        await db.execute("CREATE TABLE t (a)")
        await db.fetch_all("SELECT * FROM t")
        assert (db.pool.name, db.writer_pool.name, db.stats.name) == ("app", "app (writer)", "app")
    assert observer.opened == 2


async def test_a_hundred_writers_keep_no_reader_waiting(counter: str) -> None:
    async def write(db: Database, n: int) -> None:
        if n % 2:
            await db.execute(INCREMENT)
        else:
            async with db.transaction() as conn:
                await conn.execute(INCREMENT)

    async with Database(counter, checkout_timeout=30.0) as db:
        async with db.transaction() as conn, trio.open_nursery() as nursery:
            await conn.execute(INCREMENT)
            for n in range(100):
                nursery.start_soon(write, db, n)
            await trio.testing.wait_all_tasks_blocked()
            assert db.stats.waiting == 100
            for _ in range(10):
                assert await total(db) == 0
            async with db.connection() as one, db.connection() as two, db.connection() as three:
                for reader in (one, two, three):
                    assert await reader.fetch_value("SELECT n FROM tally") == 0
            # The writers wait for this block.
            nursery.cancel_scope.shield = False
            await conn.execute(INCREMENT)
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            for n in range(100):
                nursery.start_soon(write, db, n)
        assert await total(db) == 102
        assert db.stats.timed_out == 0
        assert db.pool.stats.opened <= 3


async def test_who_writes_on_a_readers_connection_queues_with_the_writers(counter: str) -> None:
    async def on_a_reader(db: Database) -> None:
        assert await db.fetch_value(f"{INCREMENT} RETURNING n") is not None
        async with db.connection() as conn:
            await conn.execute(INCREMENT)
            async with conn.transaction():
                await conn.execute(INCREMENT)

    async with Database(counter, checkout_timeout=30.0) as db:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(on_a_reader, db)
                nursery.start_soon(db.execute, INCREMENT)
        assert await total(db) == 40


async def test_a_transaction_that_only_reads_sees_one_state(counter: str) -> None:
    async with Database(counter) as db, db.transaction(readonly=True) as conn:
        assert await conn.fetch_value("SELECT n FROM tally") == 0
        await db.execute(INCREMENT)
        assert await conn.fetch_value("SELECT n FROM tally") == 0
        assert await total(db) == 1


# SQLite: streams.


async def test_a_stream_that_was_left_pins_nothing(counter: str) -> None:
    async with Database(counter) as db:
        await db.execute_many("INSERT INTO tally VALUES (?)", [(n,) for n in range(1000)])
        async with db.connection() as conn:
            async with conn.stream("SELECT n FROM tally", batch=10) as rows:
                await anext(rows)
                await db.execute(INCREMENT)
                assert await db.fetch_value("PRAGMA wal_checkpoint(TRUNCATE)") == 1
            assert await db.fetch_value("PRAGMA wal_checkpoint(TRUNCATE)") == 0
            with pytest.raises(KeyError):
                async with conn.stream("SELECT n FROM tally", batch=10) as rows:
                    await anext(rows)
                    await db.execute(INCREMENT)
                    raise KeyError
            assert await db.fetch_value("PRAGMA wal_checkpoint(TRUNCATE)") == 0


async def test_a_stream_that_outlived_its_lease_is_closed_with_it(counter: str) -> None:
    async with Database(counter, max_size=1) as db:
        await db.execute_many("INSERT INTO tally VALUES (?)", [(n,) for n in range(100)])
        stack = AsyncExitStack()
        async with db.connection() as conn:
            stream = conn.stream("SELECT n FROM tally", batch=10)
            rows: AsyncIterator[object] = await stack.enter_async_context(stream)
            await anext(rows)
        with pytest.raises(LeaseExpired):
            await anext(rows)
        # With a statement half-way on the same connection this would be "database table is locked".
        assert await db.fetch_value("PRAGMA wal_checkpoint(TRUNCATE)") == 0
        await stack.aclose()
        assert db.stats.opened == 1


async def test_cancelling_a_statement_beside_a_stream_ends_the_stream_and_not_the_connection(counter: str) -> None:
    async with Database(counter, max_size=1) as db:
        async with db.connection() as conn:
            async with conn.stream(NUMBERS, batch=10) as rows:
                await anext(rows)
                with trio.move_on_after(0.02):
                    await conn.fetch_all(ENDLESS)
                assert await conn.fetch_value("SELECT 7") == 7
                with pytest.raises(sqlite3.OperationalError, match="interrupted"):
                    async for _ in rows:
                        pass
            assert await conn.fetch_value("SELECT 8") == 8
        assert db.stats.opened == 1


async def test_a_streamed_write_is_done_even_if_its_rows_are_not_read(counter: str) -> None:
    async with Database(counter, max_size=1) as db:
        async with db.stream("INSERT INTO tally VALUES (1), (2), (3) RETURNING n", batch=1) as rows:
            assert await anext(rows) == (1,)
        assert await total(db) == 6


async def test_a_streams_late_failure_is_heard(url: str) -> None:
    async with Database(url) as db:
        await db.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
        await db.execute("CREATE TABLE child (id REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
        with pytest.raises(sqlite3.IntegrityError):
            async with db.stream(
                "WITH x(i) AS (VALUES (7), (8)) INSERT INTO child SELECT i FROM x RETURNING id", batch=1
            ):
                pass
        assert await db.fetch_all("SELECT * FROM child") == []


# SQLite: the driver's own.


async def test_the_drivers_row_factory_is_kept(path: Path) -> None:
    async with Database(SQLiteWorker(path, row_factory=sqlite3.Row), max_size=1) as db:
        row = await db.fetch_one("SELECT 1 AS a, 2 AS b")
        assert isinstance(row, sqlite3.Row)
        assert row["b"] == 2
        assert [each["a"] for each in await db.fetch_all("SELECT 3 AS a")] == [3]
        async with db.stream("SELECT 4 AS a") as rows:
            assert [each["a"] async for each in rows] == [4]
        assert await db.fetch_value("SELECT 5 AS a") == 5

    def as_dict(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
        return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}

    async with Database(SQLiteWorker(path, row_factory=as_dict)) as db:
        assert await db.fetch_all("SELECT 1 AS a") == [{"a": 1}]
        assert await db.fetch_value("SELECT 1 AS a") == 1


async def test_a_clients_own_row_factory_ends_with_its_lease(url: str) -> None:
    def set_factory(raw: sqlite3.Connection) -> None:
        raw.row_factory = sqlite3.Row

    async with Database(url, max_size=1) as db:
        async with db.connection() as conn:
            await conn.call(set_factory)
            assert isinstance(await conn.fetch_one("SELECT 1"), sqlite3.Row)
        assert await db.fetch_one("SELECT 1") == (1,)


@pytest.mark.parametrize("what", ["copy", "pipeline", "listen"])
async def test_what_sqlite_cannot_do_is_refused_by_name(url: str, what: str) -> None:
    async with Database(url) as db:
        with pytest.raises(Unsupported, match=rf"{what}\(\) is not supported by SQLite"):
            async with getattr(db, what)(*([] if what == "pipeline" else ["x"])):
                pass
        with pytest.raises(ValueError, match="at least one channel"):
            db.listen()
        check_balance(db.writer_pool)


# Replicas, which two databases in memory can stand for.


async def test_a_replica_serves_what_promised_only_to_read() -> None:
    memory = "sqlite:///:memory:"
    async with Database(memory, replica=memory) as db:
        assert db.reader_pool is not db.pool is db.writer_pool
        for pool, name in ((db.pool, "primary"), (db.reader_pool, "replica")):
            async with pool.checkout() as lease:
                await lease.resource.execute("CREATE TABLE t (name)")
                await lease.resource.execute("INSERT INTO t VALUES (?)", (name,))
        ask = "SELECT name FROM t"
        async with db.connection() as conn, db.connection(readonly=True) as reader:
            assert await conn.fetch_value(ask) == "primary"
            assert await reader.fetch_value(ask) == "replica"
        async with db.transaction() as conn, db.transaction(readonly=True) as reader:
            assert await conn.fetch_value(ask) == "primary"
            assert await reader.fetch_value(ask) == "replica"
        assert await db.fetch_value(ask) == "primary"
        async with db.stream(ask) as rows:
            assert [row async for row in rows] == [("primary",)]
        assert (db.stats.opened, db.stats.max_size, db.reader_pool.name) == (2, 2, "pool (replica)")


def test_a_file_has_no_replica(url: str) -> None:
    with pytest.raises(ValueError, match="replica: SQLite"):
        Database(url, replica=url)
