"""A test suite over a real database: each test runs in a sandbox, and what it commits is undone.

It needs pytest-trio with ``trio_mode = true``: ``pytest examples/test_sandbox_example.py``. For PostgreSQL only the URL
and the placeholders change (``%s`` in place of ``?``).
"""
# ruff: noqa: D103, S101, PLR2004 - a test says in its name what must hold; it asserts, on literals

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing

import pytest
import trio

from nimblepool_database import Connection, Database

# The application: it knows nothing of sandboxes.


async def transfer(db: Database, source: str, target: str, amount: int) -> None:
    """Move money, all or nothing."""
    async with db.transaction() as conn:
        await conn.execute("UPDATE account SET balance = balance - ? WHERE owner = ?", (amount, source))
        await conn.execute("UPDATE account SET balance = balance + ? WHERE owner = ?", (amount, target))


async def balance(db: Database, owner: str) -> int:
    """Tell how much somebody has."""
    value = await db.fetch_value("SELECT balance FROM account WHERE owner = ?", (owner,))
    return int(value)


# The fixtures.


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Make the database, once for all tests."""
    path = tmp_path_factory.mktemp("bank") / "bank.db"
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("CREATE TABLE account (owner TEXT PRIMARY KEY, balance INTEGER CHECK (balance >= 0))")
        raw.execute("INSERT INTO account VALUES ('Ada', 100), ('Charles', 0)")
        raw.commit()
    return f"sqlite:///{path}"


@pytest.fixture
async def db(url: str) -> AsyncIterator[Database]:
    """Lend the database to one test."""
    async with Database(url) as db, db.sandbox():
        yield db


# The tests: each finds the database as the first one did.


async def test_money_moves(db: Database) -> None:
    await transfer(db, "Ada", "Charles", 60)
    assert (await balance(db, "Ada"), await balance(db, "Charles")) == (40, 60)


async def test_a_transfer_that_fails_moves_nothing(db: Database) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        await transfer(db, "Ada", "Charles", 101)
    assert (await balance(db, "Ada"), await balance(db, "Charles")) == (100, 0)


async def test_many_tasks_at_once(db: Database) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(transfer, db, "Ada", "Charles", 2)
    assert (await balance(db, "Ada"), await balance(db, "Charles")) == (0, 100)


@pytest.fixture
async def rich(db: Database) -> AsyncIterator[Connection]:
    """Make somebody rich, in a transaction that the whole test is inside of."""
    async with db.transaction() as conn:
        await conn.execute("UPDATE account SET balance = 1000000 WHERE owner = 'Charles'")
        yield conn


async def test_a_fixture_may_hold_a_transaction(db: Database, rich: Connection) -> None:
    await transfer(db, "Charles", "Ada", 500_000)
    assert await rich.fetch_value("SELECT balance FROM account WHERE owner = 'Ada'") == 500_100
