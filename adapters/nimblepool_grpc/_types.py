"""The names of types that many modules use."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    from grpc.aio import Metadata

Q = TypeVar("Q")
"""A request."""
R = TypeVar("R")
"""A response."""

Serialize: TypeAlias = Callable[[Q], bytes]
Deserialize: TypeAlias = Callable[[bytes], R]
Requests: TypeAlias = AsyncIterable[Q] | Iterable[Q]
MetadataLike: TypeAlias = "Metadata | Sequence[tuple[str, str | bytes]]"
Options: TypeAlias = Sequence[tuple[str, Any]]
DoneCallback: TypeAlias = Callable[[Any], object]
EOFType: TypeAlias = object
"""What `grpc.aio.EOF` is, whose type has no public name."""
