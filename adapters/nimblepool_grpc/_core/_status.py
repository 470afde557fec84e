"""How an RPC ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import grpc

if TYPE_CHECKING:
    from ._cygrpc import ReceiveStatus
    from ._metadata import Metadata

__all__ = ["Status"]

_CODES: Final[dict[int, grpc.StatusCode]] = {code.value[0]: code for code in grpc.StatusCode}


class Status(NamedTuple):
    """How an RPC ended, as the server or the core here has it."""

    code: grpc.StatusCode
    details: str
    trailing_metadata: Metadata
    debug_error_string: str

    @classmethod
    def received(cls, operation: ReceiveStatus) -> Status:
        """Read what the core has received; a code that gRPC does not know is UNKNOWN."""
        return cls(
            _CODES.get(operation.code(), grpc.StatusCode.UNKNOWN),
            operation.details() or "",
            operation.trailing_metadata() or (),
            operation.error_string() or "",
        )
