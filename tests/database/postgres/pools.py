"""What the tests of pooled PostgreSQL connections share."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import psycopg
import trio

from nimblepool import Pool, open_pool
from nimblepool.testing import check_balance
from nimblepool_database._postgres._resource import PostgresResource
from nimblepool_database._postgres._worker import PostgresWorker

PATIENCE = 20.0
"""Seconds that nothing here should need."""

marker = count(1).__next__

PostgresPool = Pool[PostgresResource]
AnyPool = Pool[Any]


@asynccontextmanager
async def postgres_pool(worker: PostgresWorker | str, **options: Any) -> AsyncGenerator[PostgresPool]:  # noqa: ANN401 - the pool's own
    """A pool with the worker's defaults, whose books balance at its end."""
    if isinstance(worker, str):
        worker = PostgresWorker(worker)
    async with open_pool(worker, **worker.pool_options(options)) as pool:
        yield pool
    check_balance(pool)


async def check_every_connection(pool: AnyPool, size: int) -> list[int]:
    """Lease ``size`` connections at once: each answers its own question, outside a transaction. Return their pids."""
    pids: list[int] = []

    async def check(ready: list[object], everybody: trio.Event) -> None:
        async with pool.checkout(timeout=PATIENCE) as lease:
            ready.append(lease)
            if len(ready) == size:
                everybody.set()
            await everybody.wait()
            mine = marker()
            conn = lease.resource
            assert await conn.fetch_all("SELECT %s::int", (mine,)) == [(mine,)]
            assert conn.raw.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
            pids.append(conn.raw.info.backend_pid)

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            ready: list[object] = []
            everybody = trio.Event()
            for _ in range(size):
                nursery.start_soon(check, ready, everybody)
    assert len(set(pids)) == size
    return pids


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that the server or the pool does by itself."""
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - nothing tells us
            await trio.sleep(0.01)


def ask(url: str, sql: str, *params: object) -> Any:  # noqa: ANN401 - whatever the column holds
    """Run one statement on a connection of its own; return the first column of the first row."""
    with psycopg.connect(url, connect_timeout=10, autocommit=True) as conn:
        cursor = conn.execute(sql.encode(), params or None)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None
