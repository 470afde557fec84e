"""The rows of one streamed answer."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._session import Session

T = TypeVar("T")


class Run(Protocol):
    """Runs a function in the connection's thread."""

    async def __call__(self, work: Callable[[], T], /) -> T:
        """Run it and return its result."""
        ...


@final
class RowStream:
    """An iterator over rows that are fetched in batches.

    Invariants:
        _ended implies that _rows is empty
    """

    def __init__(self, run: Run, session: Session, batch: int) -> None:
        self._run = run
        self._session = session
        self._batch = batch
        self._cursor: Any = None
        self._rows: deque[Any] = deque()
        self._ended = False

    def __aiter__(self) -> RowStream:
        return self

    async def __anext__(self) -> Any:  # noqa: ANN401 - whatever the driver makes of a row
        if not self._rows and not self._ended:
            rows = await self._run(partial(self._session.fetch_many, self._cursor, self._batch))
            # Fewer rows than were asked for may be followed by more; none may not.
            self._ended = not rows
            self._rows.extend(rows)
        if not self._rows:
            raise StopAsyncIteration
        return self._rows.popleft()

    def keep(self, cursor: Any) -> None:  # noqa: ANN401 - each driver has a type of its own
        """Take the cursor to read from; from inside the thread, for a cancelled opening has to find it."""
        self._cursor = cursor

    def end(self) -> Any:  # noqa: ANN401 - each driver has a type of its own
        """Let there be no more rows; return the cursor, which is to be closed, if there is one."""
        self._rows.clear()
        self._ended = True
        return self._cursor
