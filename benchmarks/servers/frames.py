"""HTTP/2's frames, as far as a gRPC server for small messages needs them. A stream is known by its id's four bytes."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

Frame: TypeAlias = tuple[int, int, bytes, bytes]
"""Kind, flags, stream and payload."""

DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE = 0x0, 0x1, 0x3, 0x4, 0x6, 0x8
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
INITIAL_WINDOW_SIZE = 0x4
CONNECTION = bytes(4)
"""In place of a stream."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WINDOW = 65_535
"""Bytes, until the peer says otherwise."""
LARGEST = 2**31 - 1
HEAD = 9
"""Bytes before a payload."""

_OPENING = b"\x88\x0f\x10\x10application/grpc"
"""HPACK: `:status: 200` by its index, and `content-type` by that of its name, not to be remembered."""
_TRAILERS = b"\x00\x0bgrpc-status\x010"


def cut(data: bytes) -> tuple[list[Frame], bytes]:
    """Return the frames that are whole, and the rest."""
    frames: list[Frame] = []
    begin, last = 0, len(data) - HEAD
    while begin <= last:
        end = begin + HEAD + (data[begin] << 16 | data[begin + 1] << 8 | data[begin + 2])
        if end > len(data):
            break
        frames.append((data[begin + 3], data[begin + 4], data[begin + 5 : begin + HEAD], data[begin + HEAD : end]))
        begin = end
    return frames, data[begin:]


def build(kind: int, payload: bytes, flags: int = 0) -> bytes:
    """Return a frame of the connection's own."""
    return _begin(kind, payload, flags) + CONNECTION + payload


def settings(values: dict[int, int]) -> bytes:
    """Return the frame that tells the peer what holds here."""
    return build(SETTINGS, b"".join(struct.pack(">HI", *pair) for pair in values.items()))


def read_settings(payload: bytes) -> dict[int, int]:
    """Return what the peer tells."""
    return dict(struct.iter_unpack(">HI", payload))


def number(value: int) -> bytes:
    """Return the payload that is one number."""
    return struct.pack(">I", value)


def enclose(message: bytes) -> bytes:
    """Return gRPC's form of a message that is not compressed."""
    return b"\0" + number(len(message)) + message


@lru_cache
def answer_around(enclosed: bytes, count: int, *, begins: bool, ends: bool) -> tuple[bytes, ...]:
    """Return what is a part of an answer once the stream's id is put between: with ``count`` times the same message.

    That way an answer is written with one call of `bytes.join`, however many frames it has.
    """
    pieces = [b""]
    for kind, payload, flags in _answer(enclosed, count, begins=begins, ends=ends):
        pieces[-1] += _begin(kind, payload, flags)
        pieces.append(payload)
    return tuple(pieces)


def _answer(enclosed: bytes, count: int, *, begins: bool, ends: bool) -> Iterator[tuple[int, bytes, int]]:
    if begins:
        yield HEADERS, _OPENING, END_HEADERS
    for _ in range(count):
        yield DATA, enclosed, 0
    if ends:
        yield HEADERS, _TRAILERS, END_HEADERS | END_STREAM


def _begin(kind: int, payload: bytes, flags: int) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags))
