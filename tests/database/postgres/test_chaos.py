"""Money is moved between accounts while the server is hurt; the clients keep a ledger of what they were told."""

from __future__ import annotations

import random
from collections import Counter
from enum import Enum
from itertools import count
from typing import TYPE_CHECKING, Any, final

import psycopg
import pytest
import trio

from nimblepool import Backoff, PoolError
from nimblepool.testing import check_balance
from nimblepool_database import CommitUnknown, Database, PostgresWorker
from tests.database.postgres.pools import PATIENCE, ask, check_every_connection, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.database.postgres.server import PostgresServer

ACCOUNTS = 8
SIZE = 5
CLIENTS = 12
ROUNDS = 6
"""Of each fault; there are five."""
BEFORE, AFTER = 0.12, 0.15
"""Seconds of undisturbed work around a fault."""


class Fate(Enum):
    DONE = "acknowledged"
    UNDONE = "rolled back, or never begun"
    UNKNOWN = "nobody can tell"


class ChangedMyMindError(Exception):
    """Raised in the middle of a transfer, on purpose."""


@final
class Bank:
    """Clients that move money, and what they were told became of each transfer."""

    def __init__(self, db: Database, rng: random.Random) -> None:
        self.db = db
        self.fates: dict[int, Fate] = {}
        self.open = True
        self._rng = rng
        self._ids = count(1)

    async def serve(self) -> None:
        while self.open:
            transfer = next(self._ids)
            # Until we are told otherwise: a cancellation says that nothing was committed, too.
            self.fates[transfer] = Fate.UNDONE
            try:
                with trio.move_on_after(self._rng.uniform(0.0, 0.02) if self._rng.random() < 0.3 else PATIENCE):
                    await self._move(transfer)
                    self.fates[transfer] = Fate.DONE
            except ChangedMyMindError:
                pass
            except CommitUnknown:
                self.fates[transfer] = Fate.UNKNOWN
            except (psycopg.Error, PoolError):
                await trio.sleep(0.01)

    async def _move(self, transfer: int) -> None:
        source, target = self._rng.sample(range(ACCOUNTS), 2)
        amount = self._rng.randint(1, 9)
        async with self.db.transaction() as conn:
            async with conn.transaction():
                # Always in the same order: two transfers must not wait for each other.
                for account, change in sorted([(source, -amount), (target, amount)]):
                    await conn.execute("UPDATE account SET balance = balance + %s WHERE id = %s", (change, account))
            await conn.execute("INSERT INTO transfer VALUES (%s, %s, %s, %s)", (transfer, source, target, amount))
            if self._rng.random() < 0.1:
                raise ChangedMyMindError

    def check(self, url: str) -> None:
        """Compare what the clients were told with what the server says."""
        assert ask(url, "SELECT sum(balance) FROM account") == 100 * ACCOUNTS
        present = set(ask(url, "SELECT coalesce(array_agg(id), '{}') FROM transfer"))
        told = {fate: {n for n, what in self.fates.items() if what is fate} for fate in Fate}
        assert told[Fate.DONE] <= present, "an acknowledged transfer is lost"
        assert not told[Fate.UNDONE] & present, "a transfer that was rolled back is there"
        assert present <= self.fates.keys()
        wrong = """
            SELECT count(*) FROM account WHERE balance <> 100
                + coalesce((SELECT sum(amount) FROM transfer WHERE target = account.id), 0)
                - coalesce((SELECT sum(amount) FROM transfer WHERE source = account.id), 0)
        """
        assert ask(url, wrong) == 0, "a transfer was done by half"


def found_bank(server: PostgresServer) -> None:
    ask(
        server.url,
        f"""
        CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL);
        CREATE TABLE transfer (id int PRIMARY KEY, source int, target int, amount int);
        INSERT INTO account SELECT id, 100 FROM generate_series(0, {ACCOUNTS - 1}) id;
        """,
    )


SESSIONS = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"

IDLE_IN_TRANSACTION = f"SELECT count(*) {SESSIONS} AND state LIKE 'idle in transaction%'"


def terminate_some(server: PostgresServer) -> None:
    ask(server.url, f"SELECT count(pg_terminate_backend(pid)) {SESSIONS} AND random() < 0.6")


def kill_one(server: PostgresServer) -> None:
    server.kill_backend(ask(server.url, f"SELECT max(pid) {SESSIONS}"))


def kill_all(server: PostgresServer) -> None:
    server.kill()
    server.start()


def crash(server: PostgresServer) -> None:
    server.restart("immediate")


async def freeze(server: PostgresServer) -> None:
    with server.frozen():
        await trio.sleep(0.35)


def in_thread(fault: Callable[[PostgresServer], None]) -> Callable[[PostgresServer], Awaitable[Any]]:
    async def run(server: PostgresServer) -> None:
        await trio.to_thread.run_sync(fault, server)

    return run


FAULTS: dict[str, Callable[[PostgresServer], Awaitable[Any]]] = {
    "sessions terminated": in_thread(terminate_some),
    "a backend killed": in_thread(kill_one),
    "the server killed": in_thread(kill_all),
    "the server stopped at once": in_thread(crash),
    "the server frozen": freeze,
}


async def play_a_round(bank: Bank, server: PostgresServer, fault: Callable[[PostgresServer], Awaitable[Any]]) -> None:
    bank.open = True
    async with trio.open_nursery() as nursery:
        for _ in range(CLIENTS):
            nursery.start_soon(bank.serve)
        await trio.sleep(BEFORE)
        await fault(server)
        await trio.sleep(AFTER)
        bank.open = False


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_fault_of_the_server_makes_a_client_wrong(own_postgres: PostgresServer, fault: str) -> None:
    found_bank(own_postgres)
    worker = PostgresWorker(own_postgres.url, commit_timeout=0.2, cancel_timeout=0.2)
    backoff = Backoff(base=0.02, cap=0.1)
    async with Database(worker, max_size=SIZE, backoff=backoff, checkout_timeout=2.0) as db:
        bank = Bank(db, random.Random(fault))
        for _ in range(ROUNDS):
            with trio.fail_after(3 * PATIENCE):
                await play_a_round(bank, own_postgres, FAULTS[fault])
                # By itself, the pool is whole again.
                await check_every_connection(db.pool, SIZE)
            await until(lambda: ask(own_postgres.url, IDLE_IN_TRANSACTION) == 0)
            bank.check(own_postgres.url)
        check_balance(db.pool)
        fates = Counter(bank.fates.values())
        # It was no idle threat.
        assert db.stats.opened > SIZE
        assert fates[Fate.DONE] > 20 * ROUNDS
        assert fates[Fate.UNDONE] > ROUNDS
