"""Settings for single origins, and connections that are opened before they are needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.http.figures import total
from tests.http.servers.hanging import nobody_listens
from tests.http.servers.http1 import answering
from tests.http.servers.http2 import http2_serving
from tests.http.servers.listening import until

if TYPE_CHECKING:
    from tests.http.pairs import Pair


async def test_an_origin_has_a_limit_of_its_own_and_the_others_have_the_default(pair: Pair) -> None:
    async with answering() as one, answering() as two:
        transport = pair.make(origins={one.url: {"max_connections": 1}}, max_per_origin=3)
        async with pair.over(transport) as client, trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(client.get, one.url)
                nursery.start_soon(client.get, two.url)
            nursery.start_soon(until, lambda: total(transport, "size") == 4)
        assert (one.server.accepted, two.server.accepted) == (1, 3)


async def test_an_origin_keeps_its_least_open(pair: Pair) -> None:
    async with answering() as origin:
        transport = pair.make(origins={origin.url: {"min_connections": 3}}, limits=pair.limits(10, 10, 0.01))
        async with pair.over(transport) as client:
            await client.get(origin.url)
            await until(lambda: total(transport, "idle") == 3)
            await trio.sleep(0.05)
            assert total(transport, "idle") == 3


async def test_an_origin_speaks_its_own_version(pair: Pair) -> None:
    async with http2_serving() as new, answering() as old:
        transport = pair.make(origins={new.url: {"http1": False, "http2": True}})
        async with pair.over(transport) as client:
            assert (await client.get(new.url)).http_version == "HTTP/2"
            assert (await client.get(old.url)).http_version == "HTTP/1.1"


async def test_connections_are_opened_before_they_are_needed(pair: Pair) -> None:
    transport = pair.make()
    async with answering() as origin, pair.over(transport) as client:
        await transport.warm_up(origin.url, 3)
        assert (origin.server.accepted, total(transport, "idle")) == (3, 3)
        await client.get(origin.url)
        assert origin.server.accepted == 3


async def test_what_cannot_be_warmed_up_is_a_connect_error(pair: Pair) -> None:
    transport = pair.make()
    with nobody_listens() as url:
        async with pair.over(transport):
            with pytest.raises(pair.httpx.ConnectError):
                await transport.warm_up(url)


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        ({"max_connections": 0}, ValueError),
        ({"max_connections": "2"}, TypeError),
        ({"min_connections": 3, "max_connections": 2}, ValueError),
        ({"connections": 3}, TypeError),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_with_its_origin(
    pair: Pair, setting: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"https://books\.example"):
        pair.make(origins={"https://books.example": setting})


def test_an_origin_that_is_no_url_is_refused(pair: Pair) -> None:
    with pytest.raises(ValueError, match="protocol"):
        pair.make(origins={"books.example": {"max_connections": 1}})


async def test_forgotten_origins_leave_nothing_behind(pair: Pair) -> None:
    transport = pair.make(limits=pair.limits(10, 0), origin_idle=0.02)
    async with pair.over(transport) as client:
        for _ in range(3):
            async with answering() as origin:
                await client.get(origin.url)
        await until(lambda: not transport.stats)
        await until(lambda: not transport._workers)
