"""The health checking protocol, ``grpc.health.v1``; its two messages have one field each, and are written by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from grpc import StatusCode

from ._errors import ChannelFailed, error_from

if TYPE_CHECKING:
    from ._core import CoreCall, CoreChannel, Status

CHECK: Final = b"/grpc.health.v1.Health/Check"
WATCH: Final = b"/grpc.health.v1.Health/Watch"
SERVICE: Final = 0x0A
"""The tag of a request's field 1, a string."""
STATUS: Final = 0x08
"""The tag of a response's field 1, an enumeration."""
NAMES: Final = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
SERVING: Final = 1


@final
class Health:
    """Asks a server whether one of its services is well. A server without the protocol counts as healthy.

    Args:
        service: the name of the service; empty for the server as a whole.
    """

    def __init__(self, service: str) -> None:
        self._service = service
        self._request = _request(service)

    async def check(self, channel: CoreChannel) -> None:
        """Raise `ChannelFailed` if the service is not serving."""
        call = channel.call(CHECK)
        response = await call.unary_unary(self._request, ())
        if response is None:
            self._judge_end(call.status_now or await call.status())
        else:
            self._judge(response)

    async def watch(self, channel: CoreChannel) -> None:
        """Listen until the service is not serving any more, and raise `ChannelFailed`; return if it cannot be told."""
        call = channel.call(WATCH)
        call.start_unary_stream(self._request, ())
        try:
            await self._listen(call)
        finally:
            call.cancel("the channel is no longer watched")

    async def _listen(self, call: CoreCall) -> None:
        while (response := await call.receive()) is not None:
            self._judge(response)
        self._judge_end(call.status_now or await call.status())

    def _judge(self, response: bytes) -> None:
        status = _status(response)
        if status != SERVING:
            name = NAMES[status] if status < len(NAMES) else str(status)
            raise ChannelFailed(f"the health of service {self._service!r} is {name}")

    def _judge_end(self, status: Status) -> None:
        if status.code is not StatusCode.UNIMPLEMENTED:
            raise ChannelFailed(f"the health of service {self._service!r} is not known") from error_from(status, ())


def _request(service: str) -> bytes:
    name = service.encode()
    return bytes([SERVICE]) + _varint(len(name)) + name if name else b""


def _varint(number: int) -> bytes:
    coded = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte
        coded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*coded, number])


def _status(response: bytes) -> int:
    """Return the status in a response; one that is left out is 0."""
    return response[1] if len(response) > 1 and response[0] == STATUS else 0
