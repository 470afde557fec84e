"""Calls that have one response."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._call import Call
from ._types import Q, R

if TYPE_CHECKING:
    from collections.abc import Generator


class OneResponse(Call[Q, R]):
    """A call that has one response: ``await call`` returns it, to each who asks."""

    _response: R | None = None

    def __await__(self) -> Generator[Any, Any, R]:
        return self._respond().__await__()

    async def _receive(self) -> bytes | None:
        """Return the response as it came, or ``None`` if the RPC has failed."""
        raise NotImplementedError

    async def _respond(self) -> R:
        raw = await self._receive()
        if self._response is None:
            if raw is None:
                error = await self._error()
                assert error is not None, "bug: no response, and yet all is well"
                raise error
            self._response = self._method.deserialize(raw)
        return self._response
