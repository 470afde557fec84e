import gc
import time
from itertools import product

import pytest

from nimblepool_websocket._call import DONE, LATE, LOST, QUEUED, SENT, Call, CallState
from nimblepool_websocket._expiry import Expiry

EVENTS = ("take", "written", "answer", "expire", "lose")
TABLE = {
    (QUEUED, "take"): SENT,
    (SENT, "answer"): DONE,
    (LATE, "answer"): DONE,
    (QUEUED, "expire"): LATE,
    (SENT, "expire"): LATE,
    (QUEUED, "lose"): LOST,
    (SENT, "lose"): LOST,
}
NEVER = {(QUEUED, "answer"), (LOST, "answer"), (DONE, "answer")}
"""An exchange hands no reply to these."""


def happen(call: Call, event: str) -> None:
    getattr(call, event)(*(["reply"] if event == "answer" else []))


def call_in(state: CallState) -> Call:
    call = Call("key", b"data", is_text=True)
    for event in {QUEUED: [], SENT: ["take"], DONE: ["take", "answer"], LATE: ["take", "expire"], LOST: ["lose"]}[
        state
    ]:
        happen(call, event)
    assert call.state is state
    return call


@pytest.mark.parametrize(("state", "event"), [pair for pair in product(CallState, EVENTS) if pair not in NEVER])
def test_a_call_goes_where_the_table_says(state: CallState, event: str) -> None:
    call = call_in(state)
    happen(call, event)
    assert call.state is TABLE.get((state, event), state)
    assert call.done.is_set() is (call.state not in (QUEUED, SENT))


def test_a_call_without_a_reply_is_done_when_it_is_written() -> None:
    call = Call(None, b"data", is_text=True)
    assert call.take()
    call.written()
    assert call.state is DONE
    assert not call.take()


def seconds_to_expire(count: int) -> float:
    expiry = Expiry()
    calls = [Call(n, b"", is_text=True) for n in range(count)]
    for call in calls:
        expiry.add(call, 1.0)
    gc.disable()
    began = time.process_time()
    expiry._expire(2.0)
    taken = time.process_time() - began
    gc.enable()
    assert all(call.state is LATE for call in calls)
    return taken


def test_many_calls_expire_in_a_time_in_proportion_to_their_number() -> None:
    few = min(seconds_to_expire(5_000) for _ in range(3))
    many = min(seconds_to_expire(80_000) for _ in range(2))
    # Sixteen times as many; if each had to be looked for, it would take 256 times as long.
    assert many < 64 * few
