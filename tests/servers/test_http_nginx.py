"""nginx from Debian as a peer: strict keep-alive, TLS, HTTP/2, a reload in mid-traffic and a restart."""

import ssl
from collections.abc import Iterator
from typing import Any

import pytest
import trio
import trustme

from tests.http.figures import check_books, leases, sockets, total
from tests.http.pairs import ClientName, Pair, Transport, pair_of
from tests.http.servers.listening import until
from tests.servers.nginx import FILE_SIZE, KEEPALIVE_REQUESTS, KEEPALIVE_TIMEOUT, Nginx, generation_of

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "secure": {},
    "http2": {"http2": True},
    "prior": {"http1": False, "http2": True},
}
VERSIONS = {"plain": "HTTP/1.1", "secure": "HTTP/1.1", "http2": "HTTP/2", "prior": "HTTP/2"}
SIZE = 5


@pytest.fixture(params=["httpx", "httpx2"])
def pair(request: pytest.FixtureRequest) -> Pair:
    name: ClientName = request.param
    return pair_of(name)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def nginx(authority: trustme.CA) -> Iterator[Nginx]:
    with Nginx(authority) as server:
        yield server


@pytest.fixture
def transport(pair: Pair, kind: str, authority: trustme.CA) -> Transport:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return pair.make(verify=context, limits=pair.limits(SIZE, SIZE, 60.0), **KINDS[kind])


async def test_no_request_is_lost_to_the_limit_of_requests_on_a_connection(
    pair: Pair, kind: str, transport: Transport, nginx: Nginx
) -> None:
    url = nginx.url(kind)
    before = sockets()
    async with pair.over(transport) as client:

        async def ask(number: int) -> None:
            for step in range(20):
                method = ("GET", "POST", "HEAD", "PUT")[(number + step) % 4]
                response = await client.request(method, f"{url}/{number}/{step}")
                assert (response.status_code, response.http_version) == (200, VERSIONS[kind])

        async with trio.open_nursery() as nursery:
            for number in range(15):
                nursery.start_soon(ask, number)
        assert leases(transport) == 0
        assert total(transport, "size") <= SIZE
        check_books(transport)
    assert sockets() == before
    await until(lambda: len(nginx.requests()) >= 300)
    requests = nginx.requests()
    assert len({(method, path) for _, _, method, path, _ in requests}) == len(requests) == 300
    by_connection = nginx.requests_by_connection()
    # A GOAWAY can arrive when further requests are on their way: nginx answers those of HTTP/2 that it has begun.
    assert max(by_connection.values()) <= KEEPALIVE_REQUESTS * (1 if VERSIONS[kind] == "HTTP/1.1" else 15)
    assert len(by_connection) <= 300


async def test_a_connection_that_nginx_closed_while_idle_is_not_used(
    pair: Pair, kind: str, transport: Transport, nginx: Nginx
) -> None:
    async with pair.over(transport) as client:
        for _ in range(2):
            assert (await client.post(nginx.url(kind), content=b"x")).status_code == 200
        await trio.sleep(KEEPALIVE_TIMEOUT + 0.3)
        assert (await client.post(nginx.url(kind), content=b"x")).status_code == 200
        # nginx writes its log a moment after its answer.
        await until(lambda: len(nginx.requests_by_connection()) == 2)
        assert leases(transport) == 0


async def test_a_reload_in_mid_traffic_loses_no_request_that_may_be_repeated(
    pair: Pair, kind: str, transport: Transport, nginx: Nginx
) -> None:
    generations: set[int] = set()
    done = False
    async with pair.over(transport) as client:

        async def ask() -> None:
            while not done:
                response = await client.get(nginx.url(kind))
                assert response.status_code == 200
                generations.add(generation_of(response.text))

        async def fetch() -> None:
            while not done:
                assert len((await client.get(f"{nginx.url(kind)}/file")).content) == FILE_SIZE

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ask)
            nursery.start_soon(fetch)
            for _ in range(4):
                await trio.sleep(0.15)
                await trio.to_thread.run_sync(nginx.reload)
            with trio.fail_after(10):
                await until(lambda: nginx.generation in generations)
            done = True
        assert leases(transport) == 0
        check_books(transport)


async def test_a_restart_costs_the_requests_in_between_and_no_slot(
    pair: Pair, kind: str, transport: Transport, nginx: Nginx
) -> None:
    async with pair.over(transport) as client:

        async def ask() -> None:
            assert (await client.get(nginx.url(kind))).status_code == 200

        async def ask_all() -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(2 * SIZE):
                    nursery.start_soon(ask)

        await ask_all()
        await trio.to_thread.run_sync(nginx.kill)
        for _ in range(3):
            with pytest.raises(pair.httpx.TransportError):
                await client.get(nginx.url(kind))
        await trio.to_thread.run_sync(nginx.start)
        await ask_all()
        assert leases(transport) == 0
        check_books(transport)


async def test_answers_without_a_body_and_large_ones(pair: Pair, kind: str, transport: Transport, nginx: Nginx) -> None:
    async with pair.over(transport) as client:
        for _ in range(3):
            assert (await client.get(f"{nginx.url(kind)}/empty")).status_code == 204
            assert len((await client.get(f"{nginx.url(kind)}/file")).content) == FILE_SIZE
            async with client.stream("GET", f"{nginx.url(kind)}/file") as response:
                assert response.status_code == 200
            assert (await client.head(f"{nginx.url(kind)}/file")).headers["content-length"] == str(FILE_SIZE)
            response = await client.get(f"{nginx.url(kind)}/file", headers={"Range": "bytes=10-19"})
            assert (response.status_code, len(response.content)) == (206, 10)
        assert leases(transport) == 0
