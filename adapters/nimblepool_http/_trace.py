"""Telling a request's ``trace`` extension, and the log, what is done for it: as httpcore tells it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeVar, final

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._ticket import Ticket

T = TypeVar("T", bound=trio.abc.AsyncResource)


@final
class Tracer:
    """Tells of the steps towards one connection.

    Args:
        name: of the logger; its last part is the first part of every event's name.
        ticket: whom to tell, while it waits for this connection; a request that has gone, or was served otherwise,
            hears nothing.
    """

    def __init__(self, name: str, ticket: Ticket) -> None:
        self._logger = logging.getLogger(name)
        self._prefix = name.rsplit(".", 1)[-1]
        self._ticket = ticket

    async def step(self, name: str, info: dict[str, Any], work: Callable[[], Awaitable[T]]) -> T:
        """Return ``await work()``, and tell of its beginning and end.

        What was opened is closed if the tracer raises.
        """
        await self._tell(f"{name}.started", info)
        try:
            result = await work()
        except BaseException as error:
            await self._tell(f"{name}.failed", {"exception": error})
            raise
        try:
            await self._tell(f"{name}.complete", {"return_value": result})
        except BaseException:
            await trio.aclose_forcefully(result)
            raise
        return result

    async def pause(self, info: dict[str, Any], seconds: float) -> None:
        """Wait before another attempt."""
        await self._tell("retry.started", info)
        await trio.sleep(seconds)
        await self._tell("retry.complete", {"return_value": None})

    async def _tell(self, event: str, info: dict[str, Any]) -> None:
        await self._ticket.tell(f"{self._prefix}.{event}", info)
        if self._logger.isEnabledFor(logging.DEBUG):
            details = " ".join(f"{key}={value!r}" for key, value in info.items() if key != "auth" and value is not None)
            self._logger.debug("%s %s", event, details)
