import random
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count

import pytest
import trio

from nimblepool import Pool
from nimblepool.testing import check_balance
from nimblepool_database import Database, DatabaseResource

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
BRIEF = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000) SELECT max(i), ? FROM n"
PATIENCE = 10.0
"""Seconds that nothing here should need: an interrupt takes some 2 ms."""

NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?) SELECT i FROM n"

marker = count(1).__next__


class CancelAfterStep(trio.abc.Instrument):
    """Cancels ``scope`` just after its task has gone to sleep for the nth time."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self.task = trio.lowlevel.current_task()
        self.scope = scope
        self.step = step

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.step -= 1
            if self.step == 0:
                self.scope.cancel()


async def cancelled_after(step: int, act: Callable[[], Awaitable[object]]) -> bool:
    """Await ``act()``, cancelled after its nth step; tell whether it had so many."""
    scope = trio.CancelScope()
    instrument = CancelAfterStep(scope, step)
    with scope:
        trio.lowlevel.add_instrument(instrument)
        try:
            await act()
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return instrument.step <= 0


async def check_every_connection(db: Database) -> None:
    """Lease all connections at once; each must answer its own question, and be in no transaction."""
    pools = {db.pool, db.writer_pool}
    size = sum(pool.stats.max_size for pool in pools)

    async def check(pool: Pool[DatabaseResource], ready: list[object], everybody: trio.Event) -> None:
        async with pool.checkout() as lease:
            ready.append(lease)
            if len(ready) == size:
                everybody.set()
            await everybody.wait()
            mine = marker()
            assert await lease.resource.fetch_all("SELECT ?", (mine,)) == [(mine,)]
            assert not await lease.resource.call(lambda raw: raw.in_transaction)
            assert await lease.resource.fetch_value("PRAGMA query_only") == 0

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            ready: list[object] = []
            everybody = trio.Event()
            for pool in pools:
                for _ in range(pool.stats.max_size):
                    nursery.start_soon(check, pool, ready, everybody)


@pytest.mark.parametrize("method", ["execute", "fetch_all", "fetch_one", "fetch_value"])
async def test_cancelling_interrupts_the_query(url: str, method: str) -> None:
    async with Database(url, max_size=1) as db:
        with trio.fail_after(PATIENCE):
            async with db.connection() as conn:
                with trio.move_on_after(0.02) as scope:
                    await getattr(conn, method)(ENDLESS)
                assert scope.cancelled_caught
                mine = marker()
                assert await conn.fetch_value("SELECT ?", (mine,)) == mine
        await check_every_connection(db)
        assert db.stats.opened == 1


async def test_cancelling_interrupts_many_short_statements_and_undoes_them(counter: str) -> None:
    async with Database(counter, max_size=1) as db:
        with trio.fail_after(PATIENCE), trio.move_on_after(0.02) as scope:
            await db.execute_many("INSERT INTO tally VALUES (?)", [(1,)] * 3_000_000)
        assert scope.cancelled_caught
        assert await db.fetch_all("SELECT n FROM tally") == [(0,)]
        assert db.stats.opened == 1


async def test_cancelling_many_statements_at_any_moment_leaves_no_transaction(counter: str) -> None:
    rng = random.Random(7)
    async with Database(counter, max_size=1) as db, db.connection() as conn:
        for _ in range(100):
            with trio.move_on_after(rng.uniform(0.0, 0.004)):
                await conn.execute_many("INSERT INTO tally VALUES (?)", [(1,)] * 3000)
            assert not await conn.call(lambda raw: raw.in_transaction)
            assert await conn.fetch_value("SELECT count(*) FROM tally") % 3000 == 1


async def test_cancelling_interrupts_what_call_runs(url: str) -> None:
    def forever(raw: sqlite3.Connection) -> None:
        raw.execute(ENDLESS).fetchall()

    async with Database(url, max_size=1) as db, db.connection() as conn:
        with trio.fail_after(PATIENCE), trio.move_on_after(0.02) as scope:
            await conn.call(forever)
        assert scope.cancelled_caught
        assert await conn.fetch_value("SELECT 1") == 1


async def test_a_cancellation_comes_out_even_if_the_statement_completed(url: str) -> None:
    async with Database(url) as db, db.connection() as conn:
        await conn.call(lambda raw: raw.create_function("ignores_interrupts", 0, nap))
        with trio.move_on_after(0.01) as scope:
            await conn.fetch_value("SELECT ignores_interrupts()")
        assert scope.cancelled_caught


def nap() -> int:
    threading.Event().wait(0.05)
    return 1


async def test_cancelled_before_it_began_a_statement_does_nothing(counter: str) -> None:
    async with Database(counter) as db, db.connection() as conn:
        with trio.CancelScope() as scope:
            scope.cancel()
            await conn.execute("UPDATE tally SET n = 1")
        assert scope.cancelled_caught
        assert await conn.fetch_value("SELECT n FROM tally") == 0


async def use_a_connection(db: Database) -> None:
    async with db.connection() as conn:
        mine = marker()
        assert await conn.fetch_all("SELECT ?", (mine,)) == [(mine,)]
        assert await conn.fetch_value(BRIEF, (mine,)) == 5000


async def use_a_transaction(db: Database) -> None:
    async with db.transaction() as conn:
        await conn.execute("UPDATE tally SET n = n + 1")
        await conn.execute_many("INSERT INTO tally VALUES (?)", [(0,)] * 100)


async def use_begin_by_hand(db: Database) -> None:
    async with db.connection() as conn:
        await conn.execute("BEGIN")
        await conn.execute("INSERT INTO tally VALUES (1)")
        await conn.fetch_all("SELECT * FROM tally")


async def use_a_nested_transaction(db: Database) -> None:
    async with db.transaction() as conn:
        await conn.execute("UPDATE tally SET n = n + 1")
        async with conn.transaction(), conn.transaction():
            await conn.execute_many("INSERT INTO tally VALUES (?)", [(0,)] * 100)
        async with conn.transaction():
            await conn.execute("INSERT INTO tally VALUES (0)")


async def use_a_snapshot(db: Database) -> None:
    async with db.transaction(readonly=True) as conn:
        await conn.fetch_all("SELECT * FROM tally")
        await conn.fetch_value(BRIEF, (1,))


async def use_streams(db: Database) -> None:
    async with db.stream(NUMBERS, (100,), batch=30) as rows:
        assert [row async for row in rows] == [(n,) for n in range(1, 101)]
    async with db.connection() as conn, conn.stream(NUMBERS, (1000,), batch=10) as rows:
        assert await anext(rows) == (1,)
        await conn.execute("INSERT INTO tally VALUES (0)")
        assert await anext(rows) == (2,)


async def use_single_statements(db: Database) -> None:
    await db.execute("INSERT INTO tally VALUES (0)")
    assert await db.fetch_all(BRIEF, (7,)) == [(5000, 7)]


@pytest.mark.parametrize("warm", [True, False], ids=["open", "opening"])
@pytest.mark.parametrize(
    "use",
    [
        use_a_connection,
        use_a_transaction,
        use_a_nested_transaction,
        use_a_snapshot,
        use_streams,
        use_begin_by_hand,
        use_single_statements,
    ],
    ids=lambda use: use.__name__,
)
async def test_cancelled_at_every_checkpoint(
    counter: str, use: Callable[[Database], Awaitable[None]], warm: bool
) -> None:
    step, reached = 0, True
    while reached:
        step += 1
        async with Database(counter, max_size=2) as db:
            if warm:
                await check_every_connection(db)
            with trio.fail_after(PATIENCE):
                reached = await cancelled_after(step, partial(use, db))
            await check_every_connection(db)
            async with db.transaction():
                pass
        assert step < 100
    assert step > 2


async def test_a_hundred_tasks_on_three_connections_a_third_of_them_cancelled(counter: str) -> None:
    rng = random.Random(20240229)
    committed = 0

    async def work(db: Database) -> None:
        nonlocal committed
        for _ in range(4):
            mine = marker()
            assert await db.fetch_value("SELECT ?", (mine,)) == mine
            async with db.connection() as conn:
                assert await conn.fetch_all(BRIEF, (mine,)) == [(5000, mine)]
            async with db.transaction() as conn:
                await conn.execute("UPDATE tally SET n = n + 1")
            committed += 1

    async with Database(counter, max_size=3, checkout_timeout=60.0) as db:
        async with trio.open_nursery() as nursery:
            for n in range(100):
                if n % 3:
                    nursery.start_soon(work, db)
                else:
                    nursery.start_soon(cancelled_after, rng.randint(1, 25), lambda: work(db))
        await check_every_connection(db)
        check_balance(db.pool)
        check_balance(db.writer_pool)
        assert db.stats.size == 3
        assert await db.fetch_value("SELECT n FROM tally") == committed
        assert committed >= 66 * 4
