"""A database for tests: everything happens in one transaction, which is rolled back at the end.

There is one connection, so clients take turns. The turns are leases of a pool of one, inside the sandbox: first come,
first served, under ``checkout_timeout``. A client that has its turn and asks for another connection could wait for
ever, while in production it would get one; so what is asked for inside a turn is a *share* in it. "Inside" is
where a turn's context has come to: its own task, the tasks that were started from it, a test whose fixture has it. Not
inside is a task that was started from within a turn but may outlive it, in a nursery that was there before.
Shares of one turn take turns, too.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol, final

import trio
from trio.lowlevel import Task, current_task

from nimblepool import CheckoutTimeout, LeaseExpired, PoolOptions, PoolWorker, Verdict, open_pool

from ._errors import TransactionLost
from ._sandbox_transaction import SandboxResource, SandboxTransaction

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from contextlib import AbstractAsyncContextManager

    from nimblepool import Pool

    from ._holding import Holding
    from ._resource import DatabaseResource
    from ._worker import DatabaseWorker

DEFAULT_PATIENCE = 5.0
"""What a pool's ``checkout_timeout`` is by default."""


@final
class Sandbox:
    """The turns of the clients in one sandbox."""

    def __init__(self, pool: Pool[SandboxTransaction], transaction: SandboxTransaction, patience: float | None) -> None:
        self._pool = pool
        self._transaction = transaction
        self._patience = patience

    @asynccontextmanager
    async def checkout(self) -> AsyncGenerator[Holding, None]:
        """Have a turn, or a share in the turn that the task is in.

        Raises:
            nimblepool.CheckoutTimeout: others had their turns for longer than ``checkout_timeout``.
            nimblepool.PoolUnavailable: the connection was lost, and the sandbox with it.
        """
        before = _current.get()
        around = _turn_around(self, before)
        lent: AbstractAsyncContextManager[_Lent]
        lent = self._pool.checkout() if around is None else around.share(self._patience)
        async with lent as held:
            turn = _Turn(self, held, SandboxResource(self._transaction), before)
            _current.set(turn)
            try:
                yield turn
            finally:
                turn.end()
                # Not by a token: a fixture may leave its block in another context than it was entered in.
                _current.set(before)


class _Lent(Protocol):
    """A lease, or the turn around this one."""

    @property
    def resource(self) -> object:
        """Raises `LeaseExpired` when it has ended."""


@final
class _Turn:
    """One client's right to use the sandbox's connection."""

    def __init__(self, sandbox: Sandbox, held: _Lent, resource: DatabaseResource, before: _Turn | None) -> None:
        self.sandbox = sandbox
        self.before = before
        self._held = held
        self._resource = resource
        self._task = current_task()
        self._older_nurseries = tuple(self._task.child_nurseries)
        self._sharing = trio.Semaphore(1)
        self._ended = False

    @property
    def resource(self) -> DatabaseResource:
        """The connection, as this client sees it."""
        if self._ended:
            raise LeaseExpired("the block that gave this connection has ended; open another")
        _ = self._held.resource
        return self._resource

    def end(self) -> None:
        """Refuse from now on."""
        self._ended = True

    def encloses(self, task: Task) -> bool:
        """Tell whether the block of this turn is open, and will be until ``task`` has ended or gone on."""
        return not self._ended and not self._is_outlived_by(task)

    @asynccontextmanager
    async def share(self, patience: float | None) -> AsyncGenerator[Holding, None]:
        """Use the connection inside this turn, one share after the other."""
        await self._wait_for_share(patience)
        try:
            yield self
        finally:
            self._sharing.release()

    async def _wait_for_share(self, patience: float | None) -> None:
        with trio.move_on_after(float("inf") if patience is None else patience):
            await self._sharing.acquire()
            return
        raise CheckoutTimeout(
            f"a sandbox has one connection, and task {self._task.name!r}, inside whose block this one runs, lent it to "
            f"another for more than {patience:g} s (checkout_timeout)"
        )

    def _is_outlived_by(self, task: Task) -> bool:
        nursery = task.parent_nursery
        while nursery is not None and nursery.parent_task is not self._task:
            nursery = nursery.parent_task.parent_nursery
        return nursery in self._older_nurseries


_current: ContextVar[_Turn | None] = ContextVar("nimblepool_database turn", default=None)


def _turn_around(sandbox: Sandbox, turn: _Turn | None) -> _Turn | None:
    """Find the innermost turn of ``sandbox`` that the current task is in; turns of other sandboxes may lie between."""
    task = current_task()
    while turn is not None and not (turn.sandbox is sandbox and turn.encloses(task)):
        turn = turn.before
    return turn


@final
class SandboxWorker(PoolWorker[SandboxTransaction]):
    """Lends the sandbox's connection, as long as the database's own worker finds it good."""

    def __init__(self, transaction: SandboxTransaction, worker: DatabaseWorker[Any]) -> None:
        self._transaction: SandboxTransaction | None = transaction
        self._worker = worker

    async def init(self) -> SandboxTransaction:
        """Give the connection out, once."""
        transaction, self._transaction = self._transaction, None
        if transaction is None:
            raise TransactionLost("the sandbox's connection was lost, and all that was in it; leave the sandbox")
        return transaction

    def checkin(self, resource: SandboxTransaction, error: BaseException | None) -> Verdict:
        """Keep the connection unless the database's worker would remove it: it is in a transaction, and shall be."""
        try:
            driver = resource.driver
        except LeaseExpired:
            return Verdict.REMOVE
        # The worker may keep books of who has the connection: whoever gives it back takes it for the next one.
        verdicts = {self._worker.checkin(driver, error), self._worker.checkout(driver, None)}
        return Verdict.REMOVE if verdicts & {Verdict.REMOVE, Verdict.REFRESH} else Verdict.OK


@asynccontextmanager
async def open_sandbox(
    held: Holding, worker: DatabaseWorker[Any], options: PoolOptions
) -> AsyncGenerator[Sandbox, None]:
    """Run a sandbox on the leased connection, and roll back what was done in it."""
    patience = options.get("checkout_timeout", DEFAULT_PATIENCE)
    name = f"{options.get('name', 'pool')} (sandbox)"
    turns: PoolOptions = {"name": name, "max_size": 1, "checkout_timeout": patience}
    if "close_grace" in options:
        turns["close_grace"] = options["close_grace"]
    await held.resource.begin()
    try:
        transaction = SandboxTransaction(held)
        async with open_pool(SandboxWorker(transaction, worker), **turns) as pool:
            yield Sandbox(pool, transaction, patience)
    finally:
        with suppress(LeaseExpired):
            await held.resource.rollback()
