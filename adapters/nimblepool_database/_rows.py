"""Rows that are read while they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from nimblepool import LeaseExpired

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ._holding import Holding
    from ._resource import Row


@final
class LeasedRows:
    """The rows of a streamed answer, for as long as their block lasts."""

    __slots__ = ("_held", "_rows")

    def __init__(self, held: Holding, rows: AsyncIterator[Row]) -> None:
        self._held = held
        self._rows: AsyncIterator[Row] | None = rows

    def __aiter__(self) -> LeasedRows:
        return self

    async def __anext__(self) -> Any:  # noqa: ANN401 - whatever the row factory makes
        _ = self._held.resource
        if self._rows is None:
            raise LeaseExpired("the block of this stream has ended; read its rows inside")
        return await anext(self._rows)

    def end(self) -> None:
        """Refuse from now on."""
        self._rows = None
