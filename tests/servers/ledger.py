"""Money that is moved while things break, and a ledger of what the clients were told."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import trio

from nimblepool import PoolError
from nimblepool_database import CommitUnknown, Database
from tests.servers.process import PATIENCE, until

ACCOUNTS = 6
BALANCE = 1000
CLIENTS = 12


@dataclass
class Ledger:
    """What became of each transfer, as its client heard it.

    Attributes:
        mark: the driver's placeholder.
        failure: the driver's errors.
    """

    db: Database
    mark: str
    failure: type[Exception]
    acknowledged: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    cancelled: set[int] = field(default_factory=set)
    _numbers: "count[int]" = field(default_factory=lambda: count(1))
    _rng: random.Random = field(default_factory=lambda: random.Random(5))

    async def set_up(self, engine: str = "") -> None:
        await self.db.execute("DROP TABLE IF EXISTS account")
        await self.db.execute("DROP TABLE IF EXISTS transfer")
        await self.db.execute(f"CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL) {engine}")
        await self.db.execute(f"CREATE TABLE transfer (id INTEGER PRIMARY KEY) {engine}")
        rows = [(n, BALANCE) for n in range(ACCOUNTS)]
        await self.db.execute_many(self._sql("INSERT INTO account VALUES (?, ?)"), rows)

    async def work_while(self, disturb: Callable[[], None], rounds: int) -> None:
        """Let clients transfer money, a third of them cancelled now and then, while something is done to a server."""
        async with trio.open_nursery() as nursery:
            for n in range(CLIENTS):
                nursery.start_soon(self._client, n % 3 == 0)
            for _ in range(rounds):
                await self._more(20)
                await trio.to_thread.run_sync(disturb)
            await self._more(20)
            nursery.cancel_scope.cancel()

    async def check(self) -> None:
        """The sum is what it was, everything acknowledged is there, and nothing that failed is."""
        assert await self.db.fetch_value("SELECT SUM(balance) FROM account") == ACCOUNTS * BALANCE
        present = {row[0] for row in await self.db.fetch_all("SELECT id FROM transfer")}
        assert self.acknowledged - present == set()
        assert present & self.failed == set()
        assert present & self.cancelled == set()
        assert present <= self.acknowledged | self.unknown

    async def check_capacity(self, size: int) -> None:
        """So many connections are lent at once, and each answers its own question."""
        ready: list[int] = []
        everybody = trio.Event()

        async def one(number: int) -> None:
            async with self.db.connection() as conn:
                ready.append(number)
                if len(ready) == size:
                    everybody.set()
                await everybody.wait()
                assert await conn.fetch_value(self._sql("SELECT ? + 0"), (number,)) == number

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for number in range(size):
                    nursery.start_soon(one, number)

    async def _more(self, wanted: int) -> None:
        """Wait until so many more transfers were acknowledged."""
        target = len(self.acknowledged) + wanted
        await until(lambda: len(self.acknowledged) >= target)

    async def _client(self, impatient: bool) -> None:
        while True:
            number = next(self._numbers)
            with trio.move_on_after(self._rng.uniform(0, 0.03) if impatient else 60) as scope:
                await self._transfer(number)
            if scope.cancelled_caught:
                self.cancelled.add(number)

    async def _transfer(self, number: int) -> None:
        # In one order, so that there are no deadlocks: those are another test's.
        source, target = sorted(self._rng.sample(range(ACCOUNTS), 2))
        try:
            async with self.db.transaction() as conn:
                await conn.execute(self._sql("UPDATE account SET balance = balance - 1 WHERE id = ?"), (source,))
                await conn.execute(self._sql("UPDATE account SET balance = balance + 1 WHERE id = ?"), (target,))
                await conn.execute(self._sql("INSERT INTO transfer VALUES (?)"), (number,))
            self.acknowledged.add(number)
        except CommitUnknown:
            self.unknown.add(number)
        except (PoolError, self.failure):
            self.failed.add(number)
            await trio.sleep(0.01)

    def _sql(self, text: str) -> str:
        return text.replace("?", self.mark)
