"""TLS, mutual TLS, call credentials; and compression, which a relay can see only in plain text."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
import trio
import trustme

from nimblepool_grpc import PooledChannel
from tests.grpc.kinds import Kind, ask, every_kind
from tests.grpc.peer import PATIENCE, Server
from tests.grpc.stubs import Stubs


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> dict[str, Path]:
    paths = {name: tmp_path / name for name in ("key", "certificate", "authority")}
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(str(paths["key"]))
    issued.cert_chain_pems[0].write_to_path(str(paths["certificate"]))
    authority.cert_pem.write_to_path(str(paths["authority"]))
    return paths


@pytest.fixture
def secure(generated: Path, files: dict[str, Path]) -> Iterator[Server]:
    with Server(generated, tls=files) as server:
        yield server


@pytest.fixture
def mutual(generated: Path, files: dict[str, Path]) -> Iterator[Server]:
    with Server(generated, tls=files, mutual=True) as server:
        yield server


def trusting(authority: trustme.CA, client: trustme.LeafCert | None = None) -> grpc.ChannelCredentials:
    if client is None:
        return grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    key, chain = client.private_key_pem.bytes(), client.cert_chain_pems[0].bytes()
    return grpc.ssl_channel_credentials(authority.cert_pem.bytes(), key, chain)


@every_kind
async def test_calls_go_over_tls(secure: Server, pb: Stubs, authority: trustme.CA, kind: Kind) -> None:
    async with PooledChannel(secure.target, credentials=trusting(authority)) as channel:
        assert (await ask(kind, pb.PeerStub(channel), pb.Order(replies=1))).count == 1


@pytest.mark.parametrize("credentials", [None, trusting(trustme.CA())], ids=["no TLS", "another authority"])
async def test_a_server_that_is_not_trusted_is_unavailable(
    secure: Server, pb: Stubs, credentials: grpc.ChannelCredentials | None
) -> None:
    async with PooledChannel(secure.target, credentials=credentials, init_timeout=2) as channel:
        with trio.fail_after(PATIENCE), pytest.raises(grpc.aio.AioRpcError) as caught:
            await pb.PeerStub(channel).Single(pb.Order())
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_client_shows_its_certificate(mutual: Server, pb: Stubs, authority: trustme.CA) -> None:
    mine = trusting(authority, authority.issue_cert("client.example"))
    async with PooledChannel(mutual.target, credentials=mine) as channel:
        assert (await pb.PeerStub(channel).Single(pb.Order(number=1))).number == 1
    async with PooledChannel(mutual.target, credentials=trusting(authority), init_timeout=2) as channel:
        with trio.fail_after(PATIENCE), pytest.raises(grpc.aio.AioRpcError) as caught:
            await pb.PeerStub(channel).Single(pb.Order())
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@every_kind
async def test_credentials_of_a_call_reach_the_server(
    secure: Server, pb: Stubs, authority: trustme.CA, kind: Kind
) -> None:
    token = grpc.access_token_call_credentials("secret")
    async with PooledChannel(secure.target, credentials=trusting(authority)) as channel:
        reply = await ask(kind, pb.PeerStub(channel), pb.Order(replies=1), credentials=token)
        assert "authorization=Bearer secret" in reply.metadata
        reply = await ask(kind, pb.PeerStub(channel), pb.Order(replies=1))
        assert "authorization=Bearer secret" not in reply.metadata
    both = grpc.composite_channel_credentials(trusting(authority), token)
    async with PooledChannel(secure.target, credentials=both) as channel:
        reply = await ask(kind, pb.PeerStub(channel), pb.Order(replies=1))
        assert "authorization=Bearer secret" in reply.metadata
        assert "secret" not in repr(channel) + repr(channel.stats)


class Relay:
    """Passes on what a client and a server say to each other, and counts it.

    Attributes:
        sent: bytes from the client.
        received: bytes to the client.
    """

    def __init__(self, port: int) -> None:
        self.port = 0
        self.sent = self.received = 0
        self._upstream = port

    async def serve(self, client: trio.SocketStream) -> None:
        server = await trio.open_tcp_stream("127.0.0.1", self._upstream)
        async with client, server, trio.open_nursery() as nursery:
            nursery.start_soon(self._pass_on, client, server, "sent")
            await self._pass_on(server, client, "received")
            nursery.cancel_scope.cancel()

    async def _pass_on(self, source: trio.SocketStream, target: trio.SocketStream, count: str) -> None:
        async for data in source:
            setattr(self, count, getattr(self, count) + len(data))
            await target.send_all(data)


@asynccontextmanager
async def relaying(server: Server) -> AsyncGenerator[Relay]:
    relay = Relay(server.port)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    relay.port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, relay.serve, [listener])
        yield relay
        nursery.cancel_scope.cancel()


LONG = bytes(100_000)


@every_kind
@pytest.mark.parametrize("where", ["nowhere", "channel", "call"])
async def test_what_is_sent_is_compressed_on_request(server: Server, pb: Stubs, kind: Kind, where: str) -> None:
    by_channel = grpc.Compression.Gzip if where == "channel" else None
    by_call = {"compression": grpc.Compression.Gzip} if where == "call" else {}
    async with relaying(server) as relay:
        async with PooledChannel(f"127.0.0.1:{relay.port}", compression=by_channel) as channel:
            await ask(kind, pb.PeerStub(channel), pb.Order(replies=1, payload=LONG), **by_call)
        assert (relay.sent > len(LONG)) is (where == "nowhere")


async def test_compressed_replies_are_understood(generated: Path, pb: Stubs) -> None:
    with Server(generated, gzip=True) as server:
        async with relaying(server) as relay:
            async with PooledChannel(f"127.0.0.1:{relay.port}") as channel:
                assert (await pb.PeerStub(channel).Single(pb.Order(payload=LONG))).payload == LONG
            assert relay.received < len(LONG)
