"""The rows of an answer that is read while it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


@final
class ServerRows:
    """Fetches rows from a server-side cursor, some at a time, and yields them one by one.

    Not an asynchronous generator: that would end without an error once a fetch in it was cancelled, and the rows after
    that would seem not to exist.

    Args:
        fetch: gets at most so many rows of the cursor; fewer if they are the last.
        batch: how many to get at a time.
    """

    def __init__(self, fetch: Callable[[int], Awaitable[list[Any]]], batch: int) -> None:
        self._fetch = fetch
        self._batch = batch
        self._page: Iterator[Any] = iter(())
        self._complete = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:  # noqa: ANN401 - whatever the row factory makes
        for row in self._page:
            return row
        if not self._complete:
            await self._turn_page()
            for row in self._page:
                return row
        raise StopAsyncIteration

    async def _turn_page(self) -> None:
        rows = await self._fetch(self._batch)
        self._complete = len(rows) < self._batch
        self._page = iter(rows)
