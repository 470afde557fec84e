"""What a client asks for beside the message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from grpc import CallCredentials, Compression
from grpc.aio import Metadata

from ._check import check_optional, checked_pairs, checked_timeout

if TYPE_CHECKING:
    from ._core import Metadata as RawMetadata
    from ._types import MetadataLike

ENCODING: Final = "grpc-internal-encoding-request"
"""The metadata with which a call tells the core how to compress its requests; it is not sent."""
ENCODINGS: Final = {
    Compression.NoCompression: "identity",
    Compression.Deflate: "deflate",
    Compression.Gzip: "gzip",
}


class Terms(NamedTuple):
    """What a client asks for beside the message; what each means stands at `UnaryUnaryMultiCallable`."""

    timeout: float | None = None
    metadata: RawMetadata = ()
    credentials: CallCredentials | None = None
    wait_for_ready: bool | None = None


PLAIN: Final = Terms()


def terms_from(
    timeout: float | None,
    metadata: MetadataLike | None,
    credentials: CallCredentials | None,
    wait_for_ready: bool | None,
    compression: Compression | None = None,
) -> Terms:
    """Return the checked terms.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument has a value that is not allowed.
    """
    if timeout is None and metadata is None and credentials is None and wait_for_ready is None and compression is None:
        return PLAIN
    pairs = () if metadata is None else _pairs(metadata)
    if compression is not None:
        pairs = (*pairs, (ENCODING, _encoding(compression)))
    check_optional("credentials", credentials, CallCredentials, "grpc.CallCredentials")
    return Terms(checked_timeout(timeout), pairs, credentials, wait_for_ready)


def _pairs(metadata: MetadataLike) -> RawMetadata:
    if isinstance(metadata, Metadata):  # a mapping in old releases, and yet its items are pairs
        return tuple(metadata)
    return checked_pairs("metadata", metadata)


def _encoding(compression: object) -> str:
    for known, name in ENCODINGS.items():
        if compression == known:
            return name
    raise ValueError(f"compression must be a grpc.Compression, not {compression!r}")
