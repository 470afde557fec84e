import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import trio

from nimblepool_database import Connection, Database, DatabaseWorker

PATIENCE = 10.0
"""Seconds that nothing here should need."""
marker = count(1).__next__


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that a thread, or a server, brings about."""
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - nobody could set an event
            await trio.sleep(0.002)


def connection_threads() -> int:
    return sum(thread.name.startswith("dbapi ") for thread in threading.enumerate())


@dataclass
class Kind:
    worker: DatabaseWorker[Any]
    mark: str
    endless: str
    savepoints: bool = True

    def sql(self, text: str) -> str:
        return text.replace("?", self.mark)

    async def set_up(self, db: Database) -> None:
        await db.execute("DROP TABLE IF EXISTS account")
        await db.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)")

    async def balances(self, db: Database) -> list[tuple[int, int]]:
        return await db.fetch_all("SELECT id, balance FROM account ORDER BY id")

    async def check_every_connection(self, db: Database, size: int) -> None:
        """Lease ``size`` connections at once; each must answer its own question, and be in no transaction."""
        ready: list[Connection] = []
        everybody = trio.Event()

        async def check() -> None:
            async with db.connection() as conn:
                ready.append(conn)
                if len(ready) == size:
                    everybody.set()
                await everybody.wait()
                mine = marker()
                assert await conn.fetch_value(self.sql("SELECT CAST(? AS INTEGER)"), (mine,)) == mine
                async with conn.transaction():
                    pass

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for _ in range(size):
                    nursery.start_soon(check)
