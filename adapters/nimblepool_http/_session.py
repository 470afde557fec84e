"""The keyed pool at work, in a task that belongs to nobody's block."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, final

import trio

from nimblepool import KeyedPool, open_keyed_pool

if TYPE_CHECKING:
    from collections.abc import Callable

    from nimblepool import PoolWorker

    from ._connection import Connection
    from ._origin import Origin

logger = logging.getLogger("nimblepool")


@final
class Session:
    """One keyed pool, from the transport's first use to its closing.

    A transport is no block: httpx enters it, or does not; it may enter it several times, from other tasks than those
    that send requests, and leave it in any order. A nursery must be left in order. So the pool runs in a system task:
    `close` ends it, and waits until every connection is closed; the end of ``trio.run`` ends it, too. Nothing outlives
    either.

    Invariant: keyed is not None from the pool's opening to the beginning of its closing
    """

    def __init__(self, make_worker: Callable[[Origin], PoolWorker[Connection]], options: dict[str, Any]) -> None:
        self.keyed: KeyedPool[Origin, Connection] | None = None
        self._make_worker = make_worker
        self._options = options
        self._started = trio.Event()
        self._stopping = trio.Event()
        self._ended = trio.Event()
        self._error: BaseException | None = None
        trio.lowlevel.spawn_system_task(self._run, name="nimblepool_http: pools")

    @property
    def has_ended(self) -> bool:
        """Whether it was closed, or its ``trio.run`` has ended."""
        return self._ended.is_set()

    async def opened(self) -> KeyedPool[Origin, Connection]:
        """Return the pool, once it is open."""
        await self._started.wait()
        assert self.keyed is not None, "bug: a pool that could not be opened"
        return self.keyed

    async def close(self) -> None:
        """Close every connection, and return when that is done. A cancellation does not cut it short."""
        self._stopping.set()
        with trio.CancelScope(shield=True):
            await self._ended.wait()
        error, self._error = self._error, None
        if error is not None:
            raise error

    async def _run(self) -> None:
        try:
            async with open_keyed_pool(self._make_worker, **self._options) as keyed:
                self.keyed = keyed
                self._started.set()
                await self._stopping.wait()
        except trio.Cancelled:
            raise
        except BaseException as error:
            logger.exception("the pools of a transport came to a sudden end")
            self._error = error
        finally:
            self.keyed = None
            self._started.set()
            self._ended.set()
