import json

import pytest
from websockets.typing import Data

from nimblepool_websocket import JSONRPC, Correlator, JSONRPCError


def test_it_is_a_correlator() -> None:
    assert isinstance(JSONRPC(), Correlator)


def test_calls_have_ids_of_their_own() -> None:
    rpc = JSONRPC()
    one, two = rpc.call("add", [1, 2]), rpc.call("noop")
    assert json.loads(one) == {"jsonrpc": "2.0", "id": 1, "method": "add", "params": [1, 2]}
    assert json.loads(two) == {"jsonrpc": "2.0", "id": 2, "method": "noop"}
    assert (rpc.request_id(one), rpc.request_id(two)) == (1, 2)
    assert rpc.request_id(str(one) + " ") == 1


def test_members_and_version_are_the_users() -> None:
    rpc = JSONRPC(version=None)
    assert json.loads(rpc.call("Page.enable", sessionId="S")) == {"id": 1, "method": "Page.enable", "sessionId": "S"}
    assert json.loads(rpc.notification("gone", {"a": 1})) == {"method": "gone", "params": {"a": 1}}
    assert rpc.request_id(rpc.notification("gone")) is None


@pytest.mark.parametrize("name", ["id", "jsonrpc"])
def test_what_a_request_says_by_itself_cannot_be_said_otherwise(name: str) -> None:
    for make in (JSONRPC().call, JSONRPC(version=None).notification):
        with pytest.raises(TypeError, match=f"'{name}' is not yours to choose"):
            make("m", **{name: "abc"})


@pytest.mark.parametrize(
    ("message", "request_id", "reply_id"),
    [
        ({"id": 7, "method": "m"}, 7, None),
        ({"id": "x", "method": "m"}, "x", None),
        ({"id": 7, "result": None}, None, 7),
        ({"id": 7, "error": {}}, None, 7),
        ({"id": None, "error": {}}, None, None),
        ({"method": "m"}, None, None),
        ([{"id": 1, "method": "m"}, {"method": "n"}, {"id": 2, "method": "m"}], frozenset({1, 2}), None),
        ([{"id": 2, "result": 0}, {"id": 1, "result": 0}], None, frozenset({1, 2})),
        ([], None, None),
        (3, None, None),
        ({"id": {}, "method": "m"}, None, None),
        ({"id": True, "result": 0}, None, None),
    ],
)
@pytest.mark.parametrize("binary", [True, False])
def test_ids_are_found(message: object, request_id: object, reply_id: object, binary: bool) -> None:
    text = json.dumps(message)
    data: Data = text.encode() if binary else text
    assert JSONRPC().request_id(data) == request_id
    assert JSONRPC().reply_id(data) == reply_id


@pytest.mark.parametrize("message", ["", "{", b"\xff", "nonsense"])
def test_what_is_not_json_answers_nothing(message: Data) -> None:
    assert JSONRPC().reply_id(message) is None
    with pytest.raises(ValueError, match=r"."):
        JSONRPC().request_id(message)


def test_results_come_out_and_errors_are_raised() -> None:
    rpc = JSONRPC()
    assert rpc.result('{"id": 1, "result": [1]}') == [1]
    assert rpc.result('{"id": 1, "result": null, "error": null}') is None
    with pytest.raises(JSONRPCError, match=r"no \(-3\)") as caught:
        rpc.result('{"id": 1, "error": {"code": -3, "message": "no", "data": {"why": 1}}}')
    assert (caught.value.code, caught.value.message, caught.value.data) == (-3, "no", {"why": 1})
    with pytest.raises(JSONRPCError, match="plain"):
        rpc.result('{"id": 1, "error": "plain"}')
    for nonsense in ("[]", '{"id": 1}', "3"):
        with pytest.raises(ValueError, match="a result or an error"):
            rpc.result(nonsense)
