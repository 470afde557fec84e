"""The adapter's own errors: those of the pool are gRPC errors, too, with a status that fits."""

from __future__ import annotations

from asyncio import InvalidStateError
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Final

from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata

from nimblepool import (
    CheckoutTimeout,
    LeaseExpired,
    LeaseRevoked,
    PoolClosed,
    PoolError,
    PoolOverloaded,
    PoolUnavailable,
)

from ._core import ChannelClosed

if TYPE_CHECKING:
    from collections.abc import Generator

    from ._core import Metadata as RawMetadata
    from ._core import Status

CANCELLED_HERE: Final = "Locally cancelled by application!"
"""grpc.aio's words."""
CLOSED: Final = "the channel was closed"
"""The words for a call that was running then: the core's."""


class _OwnRpcError(AioRpcError):
    """A failure that no server has reported, in the form of an RPC's.

    Invariant: args is what the class is called with, so that the error can be copied and pickled
    """

    status: ClassVar[StatusCode]

    def __init__(self, details: str, debug_error_string: str = "") -> None:
        super().__init__(self.status, Metadata(), Metadata(), details, debug_error_string)
        self.args = (details, debug_error_string)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, self.__dict__


class RpcCancelled(_OwnRpcError):
    """The call was ended from here.

    That was its `cancel`; or a task that worked on it was cancelled, its lease has ended, or its channel was closed.
    """

    status = StatusCode.CANCELLED


class ChannelFailed(_OwnRpcError):
    """A channel could not be connected, or was lost; the details are the words of gRPC's core."""

    status = StatusCode.UNAVAILABLE

    def __repr__(self) -> str:
        return f"ChannelFailed({self.details()!r})"


class RpcEnded(InvalidStateError):
    """Something was to be written to a call that takes nothing more: it has ended well, or was half-closed."""


class PoolRpcError(PoolError, _OwnRpcError):
    """What the pool raises, as the error of a call."""

    def __init__(self, details: str, debug_error_string: str = "") -> None:
        # Not super(): what stands there is the pool's error, of which it takes nothing but the type.
        _OwnRpcError.__init__(self, details, debug_error_string)


class RpcUnavailable(PoolRpcError, PoolUnavailable):
    """No channel could be connected; the details are the core's, ``__cause__`` is the last failure.

    Attributes:
        retry_after: seconds until the pool tries again (0.0 if it may try at once).
    """

    status = StatusCode.UNAVAILABLE
    retry_after = 0.0


class RpcCheckoutTimeout(PoolRpcError, CheckoutTimeout):
    """No channel had room for the call in time; nothing was sent."""

    status = StatusCode.DEADLINE_EXCEEDED


class RpcOverloaded(PoolRpcError, PoolOverloaded):
    """The pool sheds load; nothing was sent."""

    status = StatusCode.RESOURCE_EXHAUSTED


class RpcPoolClosed(PoolRpcError, PoolClosed):
    """The pool is closing, closed, or not open yet; nothing was sent.

    It is CANCELLED rather than UNAVAILABLE, for trying again is of no use.
    """

    status = StatusCode.CANCELLED


class RpcLeaseExpired(PoolRpcError, LeaseExpired):
    """The block of `PooledChannel.lease` has ended, or not begun; nothing was sent."""

    status = StatusCode.FAILED_PRECONDITION


class RpcLeaseRevoked(PoolRpcError, LeaseRevoked):
    """The pool closed, and ``close_grace`` ran out, in the block of `PooledChannel.lease`; calls get `RpcCancelled`."""

    status = StatusCode.CANCELLED


KINDS: Final[tuple[tuple[type[PoolError], type[PoolRpcError]], ...]] = (
    (PoolUnavailable, RpcUnavailable),
    (CheckoutTimeout, RpcCheckoutTimeout),
    (PoolOverloaded, RpcOverloaded),
    (PoolClosed, RpcPoolClosed),
    (LeaseExpired, RpcLeaseExpired),
)
"""Which error of ours stands for which of the pool's; the first that fits."""


def translated(error: PoolError | ChannelClosed) -> AioRpcError:
    """Make the error of a call of the pool's, with the same cause."""
    if isinstance(error, PoolRpcError):
        return error
    if isinstance(error, ChannelClosed):
        return RpcPoolClosed("the pool has closed the channel")
    if isinstance(error, LeaseRevoked):
        return RpcCancelled(CLOSED, str(error))
    ours = next((ours for theirs, ours in KINDS if isinstance(error, theirs)), RpcUnavailable)
    cause = error.__cause__
    words = cause.details() if isinstance(cause, AioRpcError) else None
    new = ours(words, str(error)) if words else ours(str(error))
    new.__cause__ = cause
    if isinstance(error, PoolUnavailable) and isinstance(new, RpcUnavailable):
        new.retry_after = error.retry_after
    return new


@contextmanager
def in_grpcs_words() -> Generator[None]:
    """Raise what the pool raises in the block as a gRPC error."""
    try:
        yield
    except LeaseRevoked as error:
        raise RpcLeaseRevoked(str(error)) from error.__cause__
    except PoolError as error:
        raise translated(error) from error.__cause__


def error_from(status: Status, initial_metadata: RawMetadata | None) -> AioRpcError:
    """Make the error of an RPC that has failed."""
    return AioRpcError(
        status.code,
        Metadata(*(initial_metadata or ())),
        Metadata(*status.trailing_metadata),
        details=status.details,
        debug_error_string=status.debug_error_string,
    )
