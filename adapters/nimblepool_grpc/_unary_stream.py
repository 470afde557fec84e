"""The call with one request and a stream of responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from grpc.aio import UnaryStreamCall as AbstractUnaryStreamCall

from ._responses import ManyResponses
from ._types import Q, R

if TYPE_CHECKING:
    from ._core import CoreCall
    from ._method import Method
    from ._terms import Terms


@final
class UnaryStreamCall(ManyResponses[Q, R], AbstractUnaryStreamCall[Q, R]):
    """A call with one request and a stream of responses: ``async for response in call``."""

    def __init__(self, method: Method[Q, R], terms: Terms, request: Q) -> None:
        super().__init__(method, terms)
        self._request = request

    def _start(self, core: CoreCall) -> None:
        core.start_unary_stream(self._method.serialize(self._request), self._terms.metadata)
