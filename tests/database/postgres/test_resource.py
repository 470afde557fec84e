from collections.abc import AsyncGenerator
from typing import Any

import psycopg
import pytest
import trio
from psycopg.rows import dict_row

from nimblepool_database._errors import Unsupported
from nimblepool_database._postgres._resource import PostgresResource
from nimblepool_database._postgres._trio_connection import TrioConnection
from nimblepool_database._postgres._worker import PostgresWorker
from tests.database.postgres.pools import PATIENCE, check_every_connection, marker, postgres_pool


@pytest.fixture
async def conn(postgres_url: str) -> AsyncGenerator[PostgresResource]:
    """A leased connection with a temporary table ``tally``, of one row."""
    async with postgres_pool(postgres_url, max_size=1) as pool, pool.checkout() as lease:
        await lease.resource.execute("CREATE TEMPORARY TABLE tally (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        await lease.resource.execute("INSERT INTO tally VALUES (0)")
        yield lease.resource


async def test_execute_counts_the_rows_that_were_changed(conn: PostgresResource) -> None:
    assert await conn.execute("INSERT INTO tally VALUES (%s), (%s)", (1, 2)) == 2
    assert await conn.execute("INSERT INTO tally VALUES (3) RETURNING n") == 1
    assert await conn.execute("UPDATE tally SET n = n + %(by)s", {"by": 10}) == 4
    assert await conn.execute("DELETE FROM tally WHERE n > 10") == 3


@pytest.mark.parametrize(
    "sql", ["SELECT 1 UNION SELECT 2", "CREATE TEMPORARY TABLE t ()", "VALUES (1)", "SHOW port", ""]
)
async def test_execute_says_0_for_a_statement_that_changes_nothing(conn: PostgresResource, sql: str) -> None:
    assert await conn.execute(sql) == 0


async def test_fetching(conn: PostgresResource) -> None:
    assert await conn.fetch_all("SELECT * FROM (VALUES (1, 'a'), (2, 'b')) v") == [(1, "a"), (2, "b")]
    assert await conn.fetch_one("SELECT * FROM (VALUES (1, 'a'), (2, 'b')) v") == (1, "a")
    assert await conn.fetch_value("SELECT %s::text", ("x",)) == "x"


async def test_fetching_from_a_statement_without_rows(conn: PostgresResource) -> None:
    for sql in ("UPDATE tally SET n = n", "SELECT 1 WHERE false"):
        assert await conn.fetch_all(sql) == []
        assert await conn.fetch_one(sql) is None
        assert await conn.fetch_value(sql) is None


async def test_a_row_without_columns_has_no_value(conn: PostgresResource) -> None:
    assert await conn.fetch_value("SELECT") is None


async def test_without_parameters_a_percent_sign_is_itself(conn: PostgresResource) -> None:
    assert await conn.fetch_value("SELECT 'ab' LIKE 'a%'") is True


async def test_the_row_factory_makes_rows_and_does_not_hide_a_value(postgres_url: str) -> None:
    async with postgres_pool(PostgresWorker(postgres_url, row_factory=dict_row)) as pool, pool.checkout() as lease:
        assert await lease.resource.fetch_one("SELECT 1 AS a, 2 AS b") == {"a": 1, "b": 2}
        assert await lease.resource.fetch_value("SELECT 1 AS a, 2 AS b") == 1
        async with lease.resource.stream("SELECT 3 AS c", batch=10) as rows:
            assert [row async for row in rows] == [{"c": 3}]


async def test_a_row_factory_set_by_a_client_ends_with_its_lease(postgres_url: str) -> None:
    async with postgres_pool(postgres_url, max_size=1) as pool:
        async with pool.checkout() as lease:
            lease.resource.raw.row_factory = dict_row
        async with pool.checkout() as lease:
            assert await lease.resource.fetch_one("SELECT 1") == (1,)


async def test_execute_many_counts_all_rows(conn: PostgresResource) -> None:
    assert await conn.execute_many("INSERT INTO tally VALUES (%s)", ((n,) for n in range(1, 1001))) == 1000
    assert await conn.execute_many("DELETE FROM tally WHERE n = %(n)s", [{"n": 1}, {"n": 2}, {"n": -1}]) == 2
    assert await conn.execute_many("INSERT INTO tally VALUES (%s)", []) == 0
    assert await conn.fetch_value("SELECT count(*) FROM tally") == 999


BAD_ROWS = [(1,), (2,), ("no number",), (3,)]


async def test_execute_many_does_nothing_if_one_row_fails(conn: PostgresResource) -> None:
    with pytest.raises(psycopg.DataError):
        await conn.execute_many("INSERT INTO tally VALUES (%s::text::int)", BAD_ROWS)
    assert await conn.fetch_all("SELECT n FROM tally") == [(0,)]


async def test_execute_many_that_fails_leaves_the_transaction_around_it_alone(conn: PostgresResource) -> None:
    await conn.begin()
    await conn.execute("INSERT INTO tally VALUES (7)")
    with pytest.raises(psycopg.DataError):
        await conn.execute_many("INSERT INTO tally VALUES (%s::text::int)", BAD_ROWS)
    await conn.execute_many("INSERT INTO tally VALUES (%s)", [(8,), (9,)])
    await conn.commit()
    assert await conn.fetch_all("SELECT n FROM tally ORDER BY n") == [(0,), (7,), (8,), (9,)]


async def test_execute_many_in_a_transaction_begun_by_hand_is_all_or_none_too(conn: PostgresResource) -> None:
    await conn.execute("BEGIN")
    with pytest.raises(psycopg.DataError):
        await conn.execute_many("INSERT INTO tally VALUES (%s::text::int)", BAD_ROWS)
    await conn.execute("COMMIT")
    assert await conn.fetch_all("SELECT n FROM tally") == [(0,)]


async def test_a_stream_gets_rows_a_batch_at_a_time(conn: PostgresResource) -> None:
    await conn.execute("CREATE TEMPORARY SEQUENCE taken")
    async with conn.stream("SELECT i, nextval('taken') FROM generate_series(1, %s) i", (1000,), batch=10) as rows:
        got = [(await anext(rows))[0] for _ in range(15)]
        assert got == list(range(1, 16))
        assert await conn.fetch_value("SELECT last_value FROM taken") == 20
        assert [row[0] async for row in rows] == list(range(16, 1001))
        with pytest.raises(StopAsyncIteration):
            await anext(rows)


@pytest.mark.parametrize("size", [0, 1, 10, 11])
async def test_a_stream_ends_where_its_rows_do(conn: PostgresResource, size: int) -> None:
    async with conn.stream("SELECT * FROM generate_series(1, %s)", (size,), batch=10) as rows:
        assert [n async for (n,) in rows] == list(range(1, size + 1))


async def test_a_stream_leaves_no_transaction_and_no_cursor(conn: PostgresResource) -> None:
    async with conn.stream("SELECT * FROM generate_series(1, 100)", batch=3) as rows:
        await anext(rows)
    assert conn.raw.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    await conn.begin()
    async with (
        conn.stream("SELECT 1 FROM generate_series(1, 9)", batch=2) as ones,
        conn.stream("SELECT 2 FROM generate_series(1, 9)", batch=2) as twos,
    ):
        assert [await anext(ones), await anext(twos)] == [(1,), (2,)]
    assert await conn.fetch_value("SELECT count(*) FROM pg_cursors") == 0
    await conn.commit()


async def test_a_cancelled_stream_never_looks_complete(conn: PostgresResource) -> None:
    await conn.begin()
    async with conn.stream("SELECT 1, pg_sleep(i) FROM generate_series(0, 9) i", batch=1) as rows:
        await anext(rows)
        with trio.move_on_after(0.05) as scope:
            await anext(rows)
        assert scope.cancelled_caught
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            await anext(rows)
    await conn.rollback()
    assert await conn.fetch_value("SELECT 1") == 1


async def test_a_failing_stream_leaves_the_connection_usable(conn: PostgresResource) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        async with conn.stream("SELECT 1 / (5 - i) FROM generate_series(1, 9) i", batch=2) as rows:
            async for _ in rows:
                pass
    with pytest.raises(psycopg.errors.UndefinedTable):
        async with conn.stream("SELECT * FROM nowhere", batch=2):
            pass
    assert await conn.fetch_value("SELECT 1") == 1


async def test_copy_both_ways(conn: PostgresResource) -> None:
    async with conn.copy("COPY tally FROM STDIN") as copy:
        for n in range(1, 1000):
            await copy.write_row((n,))
    async with conn.copy("COPY (SELECT n FROM tally WHERE n > %s ORDER BY n) TO STDOUT", (997,)) as copy:
        copy.set_types(["int4"])
        assert [row async for row in copy.rows()] == [(998,), (999,)]


async def test_an_error_in_a_copy_copies_nothing(conn: PostgresResource) -> None:
    with pytest.raises(ZeroDivisionError):
        async with conn.copy("COPY tally FROM STDIN") as copy:
            await copy.write_row((5,))
            raise ZeroDivisionError
    assert await conn.fetch_all("SELECT n FROM tally") == [(0,)]


async def test_a_pipeline_sends_without_waiting(conn: PostgresResource) -> None:
    async with conn.pipeline():
        for n in range(1, 51):
            assert await conn.execute("INSERT INTO tally VALUES (%s)", (n,)) == 0
        assert await conn.fetch_value("SELECT count(*) FROM tally") == 51
    assert await conn.fetch_value("SELECT max(n) FROM tally") == 50


async def test_a_stream_in_a_pipeline_is_refused(conn: PostgresResource) -> None:
    async with conn.pipeline():
        with pytest.raises(Unsupported, match="inside pipeline"):
            async with conn.stream("SELECT 1", batch=1):
                pass
        assert await conn.fetch_value("SELECT 2") == 2


async def test_an_error_in_a_pipeline_comes_out_and_undoes_it(conn: PostgresResource) -> None:
    with pytest.raises(psycopg.DataError):
        async with conn.pipeline():
            await conn.execute("INSERT INTO tally VALUES (5)")
            await conn.execute("INSERT INTO tally VALUES ('x'::text::int)")
    assert await conn.fetch_all("SELECT n FROM tally") == [(0,)]


async def test_a_transaction_within_a_pipeline_and_around_one(conn: PostgresResource) -> None:
    async with conn.pipeline():
        await conn.begin()
        await conn.execute("INSERT INTO tally VALUES (1)")
        await conn.savepoint("s")
        await conn.execute("INSERT INTO tally VALUES (2)")
        await conn.rollback_to("s")
        await conn.commit()
    await conn.begin()
    async with conn.pipeline():
        await conn.execute("INSERT INTO tally VALUES (3)")
    await conn.commit()
    assert await conn.fetch_all("SELECT n FROM tally ORDER BY n") == [(0,), (1,), (3,)]


async def test_a_failure_within_a_pipeline_is_rolled_back_and_the_connection_kept(conn: PostgresResource) -> None:
    with pytest.raises(psycopg.DataError):
        async with conn.pipeline():
            await conn.begin()
            try:
                await conn.execute("INSERT INTO tally VALUES ('x'::text::int)")
                await conn.commit()
            except BaseException:
                await conn.rollback()
                raise
    assert await conn.fetch_all("SELECT n FROM tally") == [(0,)]


async def test_call_awaits_a_function_with_the_driver_s_connection(conn: PostgresResource) -> None:
    async def twice(raw: TrioConnection[Any], n: int) -> object:
        return await (await raw.execute("SELECT %s::int * 2", (n,))).fetchone()

    assert await conn.call(twice, 21) == (42,)


@pytest.mark.parametrize("method", ["execute", "fetch_all", "fetch_one", "fetch_value"])
async def test_cancelling_breaks_the_query_off_in_the_server(postgres_url: str, method: str) -> None:
    async with postgres_pool(postgres_url, max_size=2) as pool:
        with trio.fail_after(PATIENCE):
            async with pool.checkout() as lease:
                with trio.move_on_after(0.05) as scope:
                    await getattr(lease.resource, method)("SELECT pg_sleep(100), 'sleeps here'")
                assert scope.cancelled_caught
                mine = marker()
                assert await lease.resource.fetch_value("SELECT %s::int", (mine,)) == mine
                sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%s here''%%' AND state = 'active'"
                assert await lease.resource.fetch_value(sleeping % "sleeps") == 0
        await check_every_connection(pool, 1)
        assert pool.stats.opened == 1


async def test_tasks_may_share_a_connection(conn: PostgresResource) -> None:
    answers: list[tuple[int, int]] = []

    async def work(n: int) -> None:
        answers.append((n, await conn.fetch_value("SELECT %s::int", (n,))))

    async with trio.open_nursery() as nursery:
        for n in range(50):
            nursery.start_soon(work, n)
    assert sorted(answers) == [(n, n) for n in range(50)]
