import json
import time
from functools import partial

import grpc
import pytest
import trio
import trio.testing

from nimblepool_grpc._core import CallEnded, ChannelClosed, CoreCall, CoreChannel
from tests.grpc.core.process import ask, method, open_stream

HANG = b"hang"


async def test_a_unary_call_returns_its_response(channel: CoreChannel) -> None:
    call = channel.call(method("Echo"))
    assert await call.unary_unary(b"hello", ()) == b"hello"
    assert call.status_now is not None
    assert call.status_now.code is grpc.StatusCode.OK
    assert call.done
    assert not call.is_cancelled


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
async def test_messages_of_any_size_arrive_whole(channel: CoreChannel, size: int) -> None:
    assert await ask(channel, "Echo", b"x" * size) == b"x" * size


async def test_metadata_goes_both_ways(channel: CoreChannel) -> None:
    call = channel.call(method("Tell"))
    response = await call.unary_unary(b"", (("mine", "yes"), ("mine-bin", b"\x00\xfe"), ("mine", "again")))
    assert response is not None
    seen = json.loads(response)["metadata"]
    assert [pair for pair in seen if pair[0].startswith("mine")] == [
        ["mine", "yes"],
        ["mine-bin", "00fe"],
        ["mine", "again"],
    ]
    assert call.initial_metadata_now == (("first", "1"), ("first-bin", b"\x00\xff"))
    assert await call.initial_metadata() == call.initial_metadata_now
    assert call.status_now is not None
    assert call.status_now.trailing_metadata == (("last", "2"), ("last-bin", b"\xff\x00"), ("last", "3"))


async def test_a_failed_call_has_no_response_but_a_status(channel: CoreChannel) -> None:
    call = channel.call(method("Fail"))
    assert await call.unary_unary(b'["ABORTED", "too late"]', ()) is None
    status = await call.status()
    assert (status.code, status.details) == (grpc.StatusCode.ABORTED, "too late")
    assert status.trailing_metadata == (("reason", "asked"),)
    assert "too late" in status.debug_error_string
    assert call.initial_metadata_now == (("first", "1"),)


async def test_an_unknown_method_is_unimplemented(channel: CoreChannel) -> None:
    call = channel.call(b"/no.Such/Method")
    assert await call.unary_unary(b"", ()) is None
    assert (await call.status()).code is grpc.StatusCode.UNIMPLEMENTED


async def test_a_deadline_ends_the_call_here_and_reaches_the_server(channel: CoreChannel) -> None:
    told = channel.call(method("Tell"), deadline=time.time() + 50)
    response = await told.unary_unary(b"", ())
    assert response is not None
    assert 40 < json.loads(response)["time_remaining"] <= 51

    call = channel.call(method("Hang"), deadline=time.time() + 0.05)
    assert await call.unary_unary(b"", ()) is None
    assert (await call.status()).code is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("number", [0, 1, 2, 50])
async def test_a_stream_of_responses_comes_in_order_and_ends(channel: CoreChannel, number: int) -> None:
    call = open_stream(channel, number)
    assert [await call.receive() for _ in range(number)] == [str(index).encode() for index in range(number)]
    assert await call.receive() is None
    assert await call.receive() is None
    assert (await call.status()).code is grpc.StatusCode.OK


async def test_a_stream_that_fails_gives_its_messages_first(channel: CoreChannel) -> None:
    call = open_stream(channel, 2, "DATA_LOSS")
    assert [await call.receive() for _ in range(3)] == [b"0", b"1", None]
    status = await call.status()
    assert (status.code, status.details) == (grpc.StatusCode.DATA_LOSS, "after all")


async def test_a_slow_reader_holds_the_server_back(channel: CoreChannel) -> None:
    call = open_stream(channel, 200, size=100_000)
    assert await call.receive() is not None
    await trio.sleep(0.1)
    assert not call.done  # 20 MB do not fit into the windows
    received = 1
    while await call.receive() is not None:
        received += 1
    assert received == 200


async def test_a_stream_of_requests_has_one_response(channel: CoreChannel) -> None:
    call = channel.call(method("Gather"))
    call.start_stream_unary(())
    await call.connected()
    for message in (b"1", b"2", b"3"):
        await call.send(message)
    await call.half_close()
    await call.half_close()
    assert await call.response() == b"1,2,3"
    assert await call.response() == b"1,2,3"
    assert call.initial_metadata_now == ()


async def test_a_server_that_has_enough_ends_the_sending(channel: CoreChannel) -> None:
    call = channel.call(method("Refuse"))
    call.start_stream_unary(())
    with pytest.raises(CallEnded):
        while True:
            await call.send(b"x" * 1000)
    assert await call.response() is None
    assert (await call.status()).code is grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(CallEnded):
        await call.send(b"")
    await call.half_close()


async def test_sending_waits_for_a_server_that_does_not_read(channel: CoreChannel) -> None:
    call = channel.call(method("Ignore"))
    call.start_stream_unary(())
    sent = 0
    with trio.move_on_after(0.2):
        while sent < 1000:
            await call.send(b"x" * 100_000)
            sent += 1
    assert sent < 1000
    assert call.is_cancelled


async def test_both_ways_at_once(channel: CoreChannel) -> None:
    call = channel.call(method("Chat"))
    call.start_stream_stream(())
    received = []

    async def read() -> None:
        while (message := await call.receive()) is not None:
            received.append(message)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        for index in range(100):
            await call.send(str(index).encode())
        await call.half_close()
    assert received == [str(index).encode() for index in range(100)]
    assert (await call.status()).code is grpc.StatusCode.OK


async def test_initial_metadata_comes_before_any_message(channel: CoreChannel) -> None:
    call = channel.call(method("Chat"))
    call.start_stream_stream(())
    assert await call.initial_metadata() == (("first", "1"),)
    await call.connected()
    assert not call.done
    call.cancel("enough")


async def test_a_second_reader_is_refused(channel: CoreChannel) -> None:
    call = open_stream(channel, 0, "hang")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.receive)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError, match="receiving"):
            await call.receive()
        nursery.cancel_scope.cancel()


async def test_a_message_is_given_to_one_reader_only(channel: CoreChannel) -> None:
    call = open_stream(channel, 2)
    assert await call.receive() == b"0"
    await trio.sleep(0.05)  # now the next one is here already
    outcomes: list[object] = []

    async def receive() -> None:
        try:
            outcomes.append(await call.receive())
        except trio.BusyResourceError:
            outcomes.append("refused")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        nursery.start_soon(receive)
    assert sorted(map(str, outcomes)) == sorted(map(str, ["refused", b"1"]))


async def test_a_second_sender_is_refused(channel: CoreChannel) -> None:
    call = channel.call(method("Ignore"))
    call.start_stream_unary(())

    async def send_until_it_blocks() -> None:
        while True:
            await call.send(b"x" * 100_000)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_until_it_blocks)
        await trio.testing.wait_all_tasks_blocked(0.1)
        with pytest.raises(trio.BusyResourceError, match="sending"):
            await call.send(b"")
        with pytest.raises(trio.BusyResourceError, match="sending"):
            await call.half_close()
        nursery.cancel_scope.cancel()


async def test_nothing_is_sent_after_the_end_of_requests(channel: CoreChannel) -> None:
    call = channel.call(method("Chat"))
    call.start_stream_stream(())
    await call.half_close()
    with pytest.raises(RuntimeError, match="half_close"):
        await call.send(b"")
    assert await call.receive() is None


@pytest.mark.parametrize(
    ("pair", "error", "words"),
    [
        (("Key", "x"), ValueError, "lower-case"),
        (("", "x"), ValueError, "lower-case"),
        (("key", "secret\n"), ValueError, "printable ASCII"),
        (("key", "secret\xe9"), ValueError, "printable ASCII"),
        (("key", b"secret\xff"), ValueError, "printable ASCII"),
        (("key-bin", "secret"), TypeError, "bytes"),
        (("key", 1), TypeError, "str or bytes"),
        ((b"key", "x"), TypeError, "a str"),
        (("key",), TypeError, "pairs"),
        (1, TypeError, "pairs"),
    ],
)
async def test_wrong_metadata_is_refused_before_anything_begins(
    channel: CoreChannel, pair: object, error: type[Exception], words: str
) -> None:
    metadata: tuple[tuple[str, str | bytes], ...] = (pair,)  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
    starts = (
        partial(CoreCall.start_unary_stream, request=b""),
        CoreCall.start_stream_unary,
        CoreCall.start_stream_stream,
    )
    with pytest.raises(error, match=words) as refusal:
        await channel.call(method("Echo")).unary_unary(b"", metadata)
    assert "secret" not in str(refusal.value)
    for start in starts:
        with pytest.raises(error, match=words):
            start(channel.call(method("Echo")), metadata=metadata)
    assert not channel.running


async def test_a_request_that_is_not_bytes_is_refused(channel: CoreChannel) -> None:
    call = channel.call(method("Echo"))
    with pytest.raises(TypeError):
        await call.unary_unary("text", ())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert not channel.running


async def test_call_credentials_need_a_secure_channel(channel: CoreChannel) -> None:
    with pytest.raises(ValueError, match="plain text"):
        channel.call(method("Echo"), credentials=grpc.access_token_call_credentials("secret"))


async def test_compression_is_the_channels_or_the_calls(channel: CoreChannel, server: object) -> None:
    squeezed = CoreChannel(channel.target, compression=grpc.Compression.Gzip)
    try:
        assert await ask(squeezed, "Echo", b"x" * 100_000) == b"x" * 100_000
    finally:
        squeezed.close()


async def test_done_callbacks_are_called_once_whatever_they_raise(
    channel: CoreChannel, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []

    def fail() -> None:
        calls.append("fail")
        raise ZeroDivisionError

    call = channel.call(method("Echo"))
    call.add_done_callback(fail)
    call.add_done_callback(partial(calls.append, "second"))
    await call.unary_unary(b"", ())
    assert calls == ["fail", "second"]
    assert not call.cancel("too late")
    call.add_done_callback(partial(calls.append, "late"))
    assert calls == ["fail", "second", "late"]
    assert "ZeroDivisionError" in caplog.text


async def test_a_closed_channel_takes_no_call(channel: CoreChannel) -> None:
    early = channel.call(method("Echo"))
    early_stream = channel.call(method("Chat"))
    channel.close()
    channel.close()
    with pytest.raises(ChannelClosed):
        channel.call(method("Echo"))
    assert await early.unary_unary(b"", ()) is None
    assert (await early.status()).code is grpc.StatusCode.CANCELLED
    early_stream.start_stream_stream(())
    assert await early_stream.receive() is None
    with pytest.raises(CallEnded):
        await early_stream.send(b"")
    assert await early_stream.initial_metadata() == ()
    await early_stream.connected()
