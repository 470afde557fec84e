"""What goes through an HTTP/2 connection: whatever pieces it comes in, httpcore sees the same."""

from __future__ import annotations

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimblepool_http._frames import CANCEL, MAGIC, REFUSED_STREAM, Frames

REQUEST = [(":method", "POST"), (":path", "/"), (":scheme", "http"), (":authority", "a")]


class Ends:
    """A client and a server of h2's, and the frames between them."""

    def __init__(self, limit: int | None = None) -> None:
        self.client = h2.connection.H2Connection()
        self.server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        if limit is not None:
            code = h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS
            self.server.local_settings = h2.settings.Settings(client=False, initial_values={code: limit})
        self.frames = Frames()
        self.frames.greet()
        self.client.initiate_connection()
        self.server.initiate_connection()
        self.settle()

    def settle(self) -> list[h2.events.Event]:
        """Let everything arrive; return what the client's side sees."""
        seen: list[h2.events.Event] = []
        for _ in range(4):
            self.to_server()
            seen += self.to_client(self.server.data_to_send())
        return seen

    def to_server(self) -> None:
        if data := self.client.data_to_send():
            self.frames.sent(data)
        self.server.receive_data(bytes(self.frames.for_peer))
        self.frames.for_peer.clear()

    def to_client(self, data: bytes) -> list[h2.events.Event]:
        return self.client.receive_data(self.frames.received(data) + self.frames.interjection())

    def ask(self, *, end: bool = True) -> int:
        stream = self.client.get_next_available_stream_id()
        self.client.send_headers(stream, REQUEST, end_stream=end)
        return stream


def kinds(events: list[h2.events.Event], stream: int) -> list[str]:
    return [type(event).__name__ for event in events if getattr(event, "stream_id", None) == stream]


def test_the_preface_is_sent_once() -> None:
    frames = Frames()
    frames.greet()
    client = h2.connection.H2Connection()
    client.initiate_connection()
    frames.sent(client.data_to_send())
    assert bytes(frames.for_peer).count(MAGIC) == 1
    assert bytes(frames.for_peer).startswith(MAGIC)


@pytest.mark.parametrize(("limit", "known"), [(None, 100), (7, 7), (1000, 100), (0, 0)])
def test_the_limit_is_for_the_pool_and_httpcore_sees_its_own(limit: int | None, known: int) -> None:
    ends = Ends(limit)
    assert ends.frames.max_streams == known
    assert ends.client.remote_settings.max_concurrent_streams == 100


def test_goaway_refuses_the_streams_after_the_last_and_no_other() -> None:
    ends = Ends()
    streams = [ends.ask() for _ in range(3)]
    ends.settle()
    goaway = b"\0\0\x08\x07\0\0\0\0\0" + streams[0].to_bytes(4, "big") + b"\0\0\0\0"
    events = ends.to_client(goaway)
    assert ends.frames.last_accepted == streams[0]
    codes = {event.stream_id: event.error_code for event in events if isinstance(event, h2.events.StreamReset)}
    assert codes == dict.fromkeys(streams[1:], REFUSED_STREAM)
    late = ends.ask()
    ends.to_server()
    events = ends.client.receive_data(ends.frames.interjection())
    assert kinds(events, late) == ["StreamReset"]
    ends.server.send_headers(streams[0], [(":status", "200")], end_stream=True)
    assert kinds(ends.to_client(ends.server.data_to_send()), streams[0]) == ["ResponseReceived", "StreamEnded"]


def test_an_abandoned_stream_is_reset_at_both_ends_and_its_window_given_back() -> None:
    ends = Ends()
    stream = ends.ask()
    ends.settle()
    window = ends.server.outbound_flow_control_window
    ends.server.send_headers(stream, [(":status", "200")])
    ends.server.send_data(stream, b"x" * 10_000)
    late = ends.server.data_to_send()
    ends.frames.abandon(stream)
    events = ends.to_client(late)
    assert "DataReceived" not in kinds(events, stream)
    assert "StreamReset" in kinds(events, stream)
    ends.to_server()
    assert ends.server.outbound_flow_control_window == window
    assert ends.server.streams[stream].closed


def test_a_stream_abandoned_before_it_was_sent_is_reset_right_after() -> None:
    ends = Ends()
    stream = ends.ask()
    ends.frames.abandon(stream)
    assert not ends.frames.for_peer
    ends.frames.sent(ends.client.data_to_send())
    events = ends.server.receive_data(bytes(ends.frames.for_peer))
    assert kinds(events, stream)[0] == "RequestReceived"
    resets = [event for event in events if isinstance(event, h2.events.StreamReset)]
    assert [event.error_code for event in resets] == [CANCEL]


def test_a_ping_is_answered_and_httpcore_sees_none() -> None:
    ends = Ends()
    ends.server.ping(b"12345678")
    assert ends.to_client(ends.server.data_to_send()) == []
    events = ends.server.receive_data(bytes(ends.frames.for_peer))
    assert [type(event).__name__ for event in events] == ["PingAckReceived"]


def test_a_new_limit_alone_is_acknowledged_at_once() -> None:
    ends = Ends(1)
    ends.server.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 5})
    assert ends.to_client(ends.server.data_to_send()) == []
    assert ends.frames.max_streams == 5
    ends.to_server()
    assert ends.server.local_settings.max_concurrent_streams == 5


@given(st.lists(st.integers(1, 40), max_size=60), st.binary(max_size=300))
def test_the_pieces_do_not_matter(sizes: list[int], body: bytes) -> None:
    ends = Ends()
    stream = ends.ask()
    other = ends.ask()
    ends.settle()
    ends.server.send_headers(stream, [(":status", "200")])
    ends.server.ping(b"12345678")
    ends.server.send_data(stream, body)
    ends.server.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 9})
    ends.server.reset_stream(other, 2)
    ends.server.end_stream(stream)
    data = ends.server.data_to_send()
    events: list[h2.events.Event] = []
    for size in [*sizes, len(data)]:
        piece, data = data[:size], data[size:]
        events += ends.client.receive_data(ends.frames.received(piece))
    assert kinds(events, stream) == ["ResponseReceived", "DataReceived", "DataReceived", "StreamEnded"]
    assert kinds(events, other) == ["StreamReset"]
    assert ends.frames.max_streams == 9
    assert ends.frames.arrived.count(stream) == 3
    assert set(ends.frames.ended) == {stream, other}


@given(st.binary(max_size=200))
def test_garbage_raises_nothing_here(data: bytes) -> None:
    Frames().received(data)
