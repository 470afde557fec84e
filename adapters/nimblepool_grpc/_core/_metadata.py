"""Metadata as gRPC allows it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Metadata", "check_metadata"]

Metadata: TypeAlias = "tuple[tuple[str, str | bytes], ...]"
"""Pairs of a lower-case key and a value, which is bytes where the key ends in ``-bin`` and text elsewhere."""

_KEY: Final = re.compile(r"[0-9a-z_.-]+")
_TEXT: Final = re.compile(r"[ -~]*")
_BYTES_TEXT: Final = re.compile(rb"[ -~]*")


def check_metadata(metadata: Iterable[Any]) -> None:
    """Refuse what gRPC does not allow: some grpcio report it as an RPC that failed, some as an error of their own.

    No value is shown: it may be a secret.

    Raises:
        TypeError: something is no pair, or not of text and bytes.
        ValueError: a key or a value has characters that gRPC does not allow.
    """
    for pair in metadata:
        try:
            key, value = pair
        except (TypeError, ValueError):
            raise TypeError("metadata is a tuple of pairs: (key, value)") from None
        _check_pair(key, value)


def _check_pair(key: object, value: object) -> None:
    if not isinstance(key, str):
        raise TypeError(f"a key of metadata is a str, not {type(key).__name__}")
    if not _KEY.fullmatch(key):
        raise ValueError(f"metadata key {key!r}: allowed are lower-case letters, digits, '-', '_' and '.'")
    if key.endswith("-bin"):
        if not isinstance(value, bytes):
            raise TypeError(f"metadata {key!r} ends in '-bin', so its value is bytes, not {type(value).__name__}")
    elif not isinstance(value, str | bytes):
        raise TypeError(f"the value of metadata {key!r} is a str or bytes, not {type(value).__name__}")
    elif not (_TEXT.fullmatch(value) if isinstance(value, str) else _BYTES_TEXT.fullmatch(value)):
        raise ValueError(
            f"the value of metadata {key!r}: allowed is printable ASCII; a key with '-bin' takes any bytes"
        )
