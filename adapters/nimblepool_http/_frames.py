"""What goes through an HTTP/2 connection, and what of it httpcore gets to see.

httpcore counts streams and reads events, but it takes a GOAWAY for the end of every stream, stays at one stream if the
peer sets no limit, can come to a standstill when the limit falls, and lets the peer go on with streams that nobody
reads any more. What the pool has to know is in the frames themselves, which are public and stable, so this is where
it is taken from: HTTP/2 (RFC 9113) on one side, what httpcore can live with on the other.

- SETTINGS: the limit of concurrent streams is taken out; the pool keeps to it. httpcore is told of its own maximum.
- GOAWAY: is taken out. The streams that the peer will not process end with RST_STREAM (REFUSED_STREAM), which is what
  it means; the others go on.
- An abandoned stream is reset towards the peer and towards httpcore; what the peer has sent of it meanwhile is dropped,
  and its part of the connection's window given back.
- PING: is answered here, also while nobody uses the connection.
- The preface is sent when the connection is opened, so that its limit is known before it is lent. httpcore's own
  follows with the first request, without the magic; a second SETTINGS frame is as good as any.

This is the pure part: bytes in, bytes out.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, final

MAGIC: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MOST_STREAMS: Final = 100
"""httpcore's own limit."""
REFUSED_STREAM: Final = 7
CANCEL: Final = 8

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_CONTENT = frozenset({_DATA, _HEADERS})
_WHOLE = frozenset({_RST_STREAM, _SETTINGS, _PING, _GOAWAY})
"""The frames that are looked into."""
_MAX_FRAME = 16_384
_END_STREAM = _ACK = 1
_MAX_CONCURRENT_STREAMS = 3
_HEADER: Final = Struct(">HBBBL")
_HEADER_LENGTH: Final = 9
_SETTING: Final = Struct(">HL")
_STREAM_ID = 0x7FFFFFFF


@final
class Frames:
    """One connection's frames, from the client's side.

    Invariants:
        _rest is how much of the frame that is passing through, or is dropped, is still to come
        _partial is the beginning of a frame of which too little is there to go on
        abandoned lists the streams that were reset and that the peer may not know to be
    """

    def __init__(self) -> None:
        self.max_streams: int | None = None
        """The peer's limit; ``None`` until it has sent its settings."""
        self.last_accepted: int | None = None
        """After a GOAWAY: the last stream that the peer processes."""
        self.for_peer = bytearray()
        """What is to be sent, in order."""
        self.arrived: list[int] = []
        """The streams for which frames have come, once for each that is complete."""
        self.ended: list[int] = []
        """The streams of which the last frame has come."""
        self._abandoned: set[int] = set()
        self._newest = 0
        self._sending: set[int] = set()
        """The streams whose requests have not been sent to their end."""
        self._answered: set[int] = set()
        """Those of them that have been answered to the end."""
        self._unwanted: set[int] = set()
        """Those of them whose rest the peer does not want."""
        self._partial = bytearray()
        self._rest = 0
        self._drops = False
        self._stream = 0
        """Whose frame it is, if its stream is to hear of it."""
        self._is_last = False
        self._for_client = bytearray()
        self._magic_sent = False
        self._own_settings = 0

    def greet(self) -> None:
        """Begin the connection."""
        self.for_peer += MAGIC + _frame(_SETTINGS)
        self._own_settings += 1

    def abandon(self, stream: int) -> None:
        """Reset a stream whose answer nobody reads any more."""
        self._abandoned.add(stream)
        if stream <= self._newest:
            self._reset(stream)

    def sent(self, data: bytes) -> None:
        """Take what httpcore sends: whole frames, after the magic."""
        if not self._magic_sent:
            self._magic_sent = True
            data = data.removeprefix(MAGIC)
        position = 0
        while position < len(data):
            high, low, kind, flags, stream = _HEADER.unpack_from(data, position)
            end: int = position + _HEADER_LENGTH + (high << 8 | low)
            if kind == _DATA and stream in self._unwanted:
                self._swallow(stream, end - position - _HEADER_LENGTH)
            else:
                self.for_peer += data[position:end]
            if kind in {_DATA, _HEADERS}:
                self._note_sent(stream, is_last=bool(flags & _END_STREAM))
            position = end

    def received(self, data: bytes) -> bytes:
        """Return what httpcore gets of what the peer sent, as far as it goes."""
        if self._partial:
            self._partial += data
            data = bytes(self._partial)
            self._partial.clear()
        passing = bytearray()
        position = 0
        while position < len(data):
            if self._rest:
                position = self._go_on(data, position, passing)
                continue
            passing += self._interjection()
            following = self._begin(data, position, passing)
            if following is None:
                self._partial += data[position:]
                break
            position = following
        if not self._rest:
            passing += self._interjection()
        return bytes(passing)

    def interjection(self) -> bytes:
        """Return what httpcore is to be told before the peer sends more; nothing in the midst of a frame."""
        return b"" if self._rest else self._interjection()

    def _interjection(self) -> bytes:
        frames = bytes(self._for_client)
        self._for_client.clear()
        return frames

    def _note_sent(self, stream: int, *, is_last: bool) -> None:
        if stream > self._newest:
            self._newest = stream
            self._sending.add(stream)
            if stream in self._abandoned:
                self._reset(stream)
            if self.last_accepted is not None and stream > self.last_accepted:
                self._end_for_client(stream, REFUSED_STREAM)
        if is_last:
            self._sending.discard(stream)
            self._answered.discard(stream)
            self._unwanted.discard(stream)

    def _swallow(self, stream: int, length: int) -> None:
        """Let httpcore go on with a body that the peer does not want; it may not stop, and needs no window for it."""
        if length:
            window = length.to_bytes(4, "big")
            self._for_client += _frame(_WINDOW_UPDATE, payload=window)
            self._for_client += _frame(_WINDOW_UPDATE, stream=stream, payload=window)

    def _is_mere_stop(self, stream: int, code: int) -> bool:
        """Tell whether a reset only says that the rest of a body is not wanted; the answer is there (RFC 9113, 8.1)."""
        if stream in self._unwanted:
            return True
        if code or stream not in self._answered:
            return False
        self._answered.discard(stream)
        self._unwanted.add(stream)
        # It may be waiting for a window.
        self._for_client += _frame(_WINDOW_UPDATE, stream=stream, payload=_MAX_FRAME.to_bytes(4, "big"))
        return True

    def _reset(self, stream: int) -> None:
        self.for_peer += _frame(_RST_STREAM, stream=stream, payload=CANCEL.to_bytes(4, "big"))
        self._end_for_client(stream, CANCEL)

    def _go_on(self, data: bytes, position: int, passing: bytearray) -> int:
        """Deal with the rest of a frame; return where the next one begins, or the data ends."""
        end = min(len(data), position + self._rest)
        self._rest -= end - position
        if not self._drops:
            passing += data[position:end]
        if not self._rest:
            self._completed()
        return end

    def _completed(self) -> None:
        if self._stream:
            self.arrived.append(self._stream)
            if self._is_last:
                self.ended.append(self._stream)
                if self._stream in self._sending:
                    self._answered.add(self._stream)

    def _begin(self, data: bytes, position: int, passing: bytearray) -> int | None:
        """Deal with the beginning of a frame; return where to go on, or ``None`` if more of it is needed."""
        payload = position + _HEADER_LENGTH
        if len(data) < payload:
            return None
        high, low, kind, flags, stream = _HEADER.unpack_from(data, position)
        length: int = high << 8 | low
        stream &= _STREAM_ID
        if kind in _WHOLE and length <= _MAX_FRAME:
            end = payload + length
            if len(data) < end:
                return None
            passing += self._whole(kind, flags, stream, data[payload:end])
            return end
        if not self._drop(kind, stream, length):
            passing += data[position:payload]
        self._rest = length
        self._is_last = kind in _CONTENT and bool(flags & _END_STREAM)
        self._stream = stream if kind in _CONTENT and not self._drops else 0
        if self._is_last:
            self._abandoned.discard(stream)
        if not length:
            self._completed()
        return payload

    def _drop(self, kind: int, stream: int, length: int) -> bool:
        """Decide whether the frame that begins is dropped: data that nobody waits for is, and counted as read."""
        self._drops = kind == _DATA and stream in self._abandoned
        if self._drops and length:
            self.for_peer += _frame(_WINDOW_UPDATE, payload=length.to_bytes(4, "big"))
        return self._drops

    def _whole(self, kind: int, flags: int, stream: int, content: bytes) -> bytes:
        """Deal with a frame that is looked into; return what httpcore gets of it."""
        if kind == _SETTINGS:
            return self._settings(flags, content)
        if kind == _GOAWAY:
            self._goaway(content)
            return b""
        if kind == _RST_STREAM:
            return self._rst_stream(stream, content)
        if not flags & _ACK:
            self.for_peer += _frame(_PING, _ACK, payload=content)
        return b""

    def _rst_stream(self, stream: int, content: bytes) -> bytes:
        if self._is_mere_stop(stream, int.from_bytes(content, "big")):
            return b""
        self._abandoned.discard(stream)
        self.arrived.append(stream)
        self.ended.append(stream)
        return _frame(_RST_STREAM, stream=stream, payload=content)

    def _settings(self, flags: int, content: bytes) -> bytes:
        if flags & _ACK:
            if self._own_settings:
                self._own_settings -= 1
                return b""
            return _frame(_SETTINGS, flags)
        others = bytearray()
        if self.max_streams is None:
            self.max_streams = MOST_STREAMS
            others += _SETTING.pack(_MAX_CONCURRENT_STREAMS, MOST_STREAMS)
        for at in range(0, len(content) - _SETTING.size + 1, _SETTING.size):
            code, value = _SETTING.unpack_from(content, at)
            if code == _MAX_CONCURRENT_STREAMS:
                self.max_streams = min(value, MOST_STREAMS)
            else:
                others += content[at : at + _SETTING.size]
        if not others:  # then it is all dealt with, and a peer may hold to its old limit until it hears of that
            self.for_peer += _frame(_SETTINGS, _ACK)
            return b""
        return _frame(_SETTINGS, payload=bytes(others))

    def _goaway(self, content: bytes) -> None:
        last = int.from_bytes(content[:4], "big") & _STREAM_ID
        if self.last_accepted is not None:
            last = min(last, self.last_accepted)
        self.last_accepted = last
        first_refused = last + 1 if last % 2 == 0 else last + 2
        for stream in range(first_refused, self._newest + 1, 2):
            self._end_for_client(stream, REFUSED_STREAM)

    def _end_for_client(self, stream: int, code: int) -> None:
        self._for_client += _frame(_RST_STREAM, stream=stream, payload=code.to_bytes(4, "big"))
        self.ended.append(stream)


def _frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    length = len(payload)
    return _HEADER.pack(length >> 8, length & 0xFF, kind, flags, stream) + payload
