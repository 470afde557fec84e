"""The call with streams both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from grpc.aio import StreamStreamCall as AbstractStreamStreamCall

from ._many_requests import ManyRequests
from ._responses import ManyResponses
from ._types import Q, R

if TYPE_CHECKING:
    from ._core import CoreCall


@final
class StreamStreamCall(ManyRequests[Q, R], ManyResponses[Q, R], AbstractStreamStreamCall[Q, R]):
    """A call with streams both ways: ``async for response in call``; one task may write while another one reads."""

    def _start(self, core: CoreCall) -> None:
        core.start_stream_stream(self._terms.metadata)
        self._feed(core)
