"""The pool's errors as gRPC errors, and what is refused before anything is sent."""

import copy
import pickle

import grpc
import grpc.aio
import pytest

import nimblepool
import nimblepool_grpc
from nimblepool import (
    CheckoutTimeout,
    LeaseExpired,
    LeaseRevoked,
    PoolClosed,
    PoolError,
    PoolOverloaded,
    PoolUnavailable,
)
from nimblepool_grpc import PooledChannel
from nimblepool_grpc._answered import Settled
from nimblepool_grpc._errors import in_grpcs_words, translated
from tests.grpc.kinds import Kind, ask, every_kind
from tests.grpc.peer import Server
from tests.grpc.stubs import Generated, Stubs

EXPECTED: list[tuple[type[PoolError], type[PoolError], grpc.StatusCode]] = [
    (PoolUnavailable, nimblepool_grpc.RpcUnavailable, grpc.StatusCode.UNAVAILABLE),
    (CheckoutTimeout, nimblepool_grpc.RpcCheckoutTimeout, grpc.StatusCode.DEADLINE_EXCEEDED),
    (PoolOverloaded, nimblepool_grpc.RpcOverloaded, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (PoolClosed, nimblepool_grpc.RpcPoolClosed, grpc.StatusCode.CANCELLED),
    (LeaseExpired, nimblepool_grpc.RpcLeaseExpired, grpc.StatusCode.FAILED_PRECONDITION),
    (LeaseRevoked, nimblepool_grpc.RpcLeaseRevoked, grpc.StatusCode.CANCELLED),
]


@pytest.mark.parametrize(("theirs", "ours", "code"), EXPECTED)
def test_an_error_of_the_pool_is_grpcs_too(
    theirs: type[PoolError], ours: type[PoolError], code: grpc.StatusCode
) -> None:
    error = theirs("its words")
    error.__cause__ = ValueError("why")
    with pytest.raises(grpc.aio.AioRpcError) as caught, in_grpcs_words():
        raise error
    new: Generated = caught.value
    assert type(new).__name__ == ours.__name__
    assert issubclass(ours, theirs)
    assert (new.code(), new.details()) == (code, "its words")
    assert not new.initial_metadata()
    assert not new.trailing_metadata()
    assert new.__cause__ is error.__cause__
    assert "its words" in str(new)
    assert translated(new) is new


def test_a_call_whose_lease_was_revoked_was_cancelled() -> None:
    new = translated(LeaseRevoked("its words"))
    assert isinstance(new, nimblepool_grpc.RpcCancelled)
    assert (new.details(), new.debug_error_string()) == ("the channel was closed", "its words")


async def test_a_request_that_an_answered_call_does_not_send_is_not_quoted() -> None:
    with pytest.raises(nimblepool_grpc.RpcEnded) as caught:
        await Settled().write("hunter2")
    assert "hunter2" not in str(caught.value)


def test_an_unavailable_pool_says_what_the_core_says_and_when_to_come_back() -> None:
    error = PoolUnavailable("the pool's", retry_after=1.5)
    error.__cause__ = nimblepool_grpc.ChannelFailed("connection refused")
    new = translated(error)
    assert isinstance(new, nimblepool_grpc.RpcUnavailable)
    assert (new.details(), new.debug_error_string(), new.retry_after) == ("connection refused", "the pool's", 1.5)


@pytest.mark.parametrize("duplicate", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_errors_can_be_copied_and_pickled(duplicate: Generated) -> None:
    error = nimblepool_grpc.RpcUnavailable("words", "more words")
    error.retry_after = 2.0
    twin = duplicate(error)
    assert type(twin) is type(error)
    assert (twin.details(), twin.debug_error_string(), twin.retry_after) == ("words", "more words", 2.0)


@every_kind
async def test_a_full_queue_is_an_exhausted_resource(server: Server, pb: Stubs, kind: Kind) -> None:
    async with PooledChannel(server.target, 1, calls_per_channel=1, max_waiting=0) as channel:
        stub = pb.PeerStub(channel)
        async with stub.Both():
            with pytest.raises(PoolOverloaded) as caught:
                await ask(kind, stub, pb.Order())
            assert isinstance(caught.value, grpc.aio.AioRpcError)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@every_kind
async def test_a_call_that_gets_no_channel_has_an_outcome_to_ask_for(server: Server, pb: Stubs, kind: Kind) -> None:
    told: list[object] = []
    async with PooledChannel(server.target, 1, calls_per_channel=1, checkout_timeout=0.01) as channel:
        stub = pb.PeerStub(channel)
        async with stub.Both():
            call = getattr(stub, kind)(*([pb.Order()] if kind in {"Single", "Down"} else []))
            call.add_done_callback(told.append)
            assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert "no resource within" in await call.details()
            assert call.done()
            assert not call.cancelled()
            assert not call.cancel()
            assert told == [call]
            assert not await call.initial_metadata()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"target": ""}, ValueError, "target"),
        ({"target": 50051}, TypeError, "target"),
        ({"channels": 0}, ValueError, "channels"),
        ({"channels": grpc.ssl_channel_credentials()}, TypeError, "credentials="),
        ({"calls_per_channel": 0}, ValueError, "calls_per_channel"),
        ({"credentials": "secret"}, TypeError, "credentials"),
        ({"compression": "gzip"}, TypeError, "compression"),
        ({"health_service": 1}, TypeError, "health_service"),
        ({"options": {"a": 1}}, TypeError, "options"),
        ({"options": [("a", 1.5)]}, TypeError, "'a'"),
        ({"options": [("a", None)]}, TypeError, "'a'"),
        ({"options": [("a",)]}, TypeError, "options"),
        ({"max_size": 3}, TypeError, "channels="),
        ({"max_hold": 3}, TypeError, "timeout="),
        ({"on_death": "cancel"}, TypeError, "on_death"),
        ({"max_agee": 3}, TypeError, "max_age"),
    ],
)
def test_an_argument_that_is_not_allowed_is_named_at_once(
    arguments: dict[str, Generated], error: type[Exception], words: str
) -> None:
    make: Generated = PooledChannel
    with pytest.raises(error, match=words) as caught:
        make(**{"target": "localhost:1", **arguments})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"timeout": "1"}, TypeError, "timeout"),
        ({"timeout": float("nan")}, ValueError, "timeout"),
        ({"metadata": "secret"}, TypeError, "metadata"),
        ({"metadata": [("key", "secret", 1)]}, TypeError, "metadata"),
        ({"credentials": "secret"}, TypeError, "credentials"),
        ({"compression": 77}, ValueError, "compression"),
    ],
)
@every_kind
async def test_a_term_that_is_not_allowed_is_named_at_once(
    pb: Stubs, kind: Kind, arguments: dict[str, Generated], error: type[Exception], words: str
) -> None:
    stub = pb.PeerStub(PooledChannel("localhost:1"))
    with pytest.raises(error, match=words) as caught:
        getattr(stub, kind)(pb.Order() if kind in {"Single", "Down"} else None, **arguments)
    assert "secret" not in str(caught.value)


def test_requests_that_cannot_be_iterated_over_are_refused_at_once(pb: Stubs) -> None:
    stub = pb.PeerStub(PooledChannel("localhost:1"))
    for method in (stub.Up, stub.Both):
        with pytest.raises(TypeError, match="iterable"):
            method(pb.Order())


async def test_metadata_that_grpc_does_not_allow_costs_no_lease(channel: PooledChannel, pb: Stubs) -> None:
    stub = pb.PeerStub(channel)
    for method in (stub.Single, stub.Down):
        call = method(pb.Order(), metadata=[("UPPER CASE", "x")])
        with pytest.raises(ValueError, match="metadata"):
            await (call if method is stub.Single else call.read())
        assert call.done()
        assert channel.stats.leases == 0


def test_all_that_is_raised_by_the_pool_is_covered() -> None:
    not_raised_here = {"PoolError", "NoneIdle", "LeaseTimeout", "ResourceLost"}
    raised = {name for name in nimblepool.__all__ if _is_an_error(getattr(nimblepool, name))}
    assert raised == {theirs.__name__ for theirs, _, _ in EXPECTED} | not_raised_here


def _is_an_error(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, PoolError)
