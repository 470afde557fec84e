"""What is used of cygrpc, with types: grpcio has none for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from ._fit import load

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ._metadata import Metadata

__all__ = [
    "Channel",
    "Operation",
    "ReceiveInitialMetadata",
    "ReceiveMessage",
    "ReceiveStatus",
    "StartedCall",
    "cygrpc",
]


class Operation(Protocol):
    """One of the things that a batch has the core do; it also holds what came of it."""

    def type(self) -> int:
        """Which operation it is."""
        ...


class ReceiveInitialMetadata(Operation, Protocol):
    """Receives the server's initial metadata."""

    def initial_metadata(self) -> Metadata: ...


class ReceiveMessage(Operation, Protocol):
    """Receives one message."""

    def message(self) -> bytes | None: ...


class ReceiveStatus(Operation, Protocol):
    """Receives how the RPC ended."""

    def code(self) -> int: ...

    def details(self) -> str | None: ...

    def trailing_metadata(self) -> Metadata | None: ...

    def error_string(self) -> str | None: ...


class StartedCall(Protocol):
    """The core's side of one RPC."""

    def cancel(self, details: str) -> None: ...


class Channel(Protocol):
    """The core's side of one channel."""

    def check_connectivity_state(self, try_to_connect: bool) -> int: ...

    def watch_connectivity_state(self, last_observed_state: int, deadline: float | None) -> _Batched: ...

    def call(
        self, method: bytes, deadline: float | None, credentials: object, wait_for_ready: bool | None
    ) -> StartedCall: ...

    def close(self) -> None: ...


class _InitialMetadataFlags(Protocol):
    used_mask: int
    wait_for_ready: int
    wait_for_ready_explicitly_set: int


class _Cygrpc(Protocol):
    """The module."""

    ExecuteBatchError: type[Exception]
    InitialMetadataFlags: _InitialMetadataFlags

    def init_grpc_aio(self) -> None: ...

    def AioChannel(  # noqa: N802
        self, target: bytes, options: tuple[tuple[str, object], ...], credentials: object, loop: object
    ) -> Channel: ...

    def execute_batch(self, call: StartedCall, operations: tuple[Operation, ...], loop: object) -> _Batched: ...

    def SendInitialMetadataOperation(self, metadata: Metadata, flags: int) -> Operation: ...  # noqa: N802

    def SendMessageOperation(self, message: bytes, flags: int) -> Operation: ...  # noqa: N802

    def SendCloseFromClientOperation(self, flags: int) -> Operation: ...  # noqa: N802

    def ReceiveInitialMetadataOperation(self, flags: int) -> ReceiveInitialMetadata: ...  # noqa: N802

    def ReceiveMessageOperation(self, flags: int) -> ReceiveMessage: ...  # noqa: N802

    def ReceiveStatusOnClientOperation(self, flags: int) -> ReceiveStatus: ...  # noqa: N802


_Batched: TypeAlias = "Coroutine[Any, Any, object]"
"""Waits, by a future of the loop's, until the core has done what it was given."""

cygrpc = cast("_Cygrpc", load())
