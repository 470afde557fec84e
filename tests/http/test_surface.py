"""What the transport has beyond httpx's: figures by origin, observers, limits for each origin, ages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from nimblepool import PoolObserver, PoolStats
from tests.http.figures import leases, total
from tests.http.servers.http1 import answering
from tests.http.servers.listening import until

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.http.pairs import Pair
    from tests.http.servers.http1 import Request, Visitor


async def test_figures_are_kept_by_origin(pair: Pair) -> None:
    transport = pair.make()
    async with answering() as one, answering() as two, pair.over(transport) as client:
        assert dict(transport.stats) == {}
        await client.get(one.url)
        await client.get(one.url)
        await client.get(two.url)
        stats = transport.stats
        assert {origin: figures.started for origin, figures in stats.items()} == {one.url: 2, two.url: 1}
        assert all(isinstance(figures, PoolStats) for figures in stats.values())
        assert [figures.idle for figures in stats.values()] == [1, 1]


async def test_close_idle_closes_what_is_idle_and_nothing_else(pair: Pair) -> None:
    transport = pair.make()
    async with answering() as one, answering() as two, pair.over(transport) as client:
        await client.get(two.url)
        async with client.stream("GET", one.url) as response:
            transport.close_idle()
            await two.server.until_empty()
            assert (one.server.living, leases(transport)) == (1, 1)
            assert await response.aread() == b"ok"
        assert (await client.get(one.url)).text == "ok"
        assert one.server.accepted == 1
        transport.close_idle()
        await one.server.until_empty()
        assert total(transport, "size") == 0


async def test_observers_are_told_the_origin(pair: Pair) -> None:
    told: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
    events = [name for name in vars(PoolObserver) if not name.startswith("_")]

    def teller(event: str) -> Any:  # noqa: ANN401 # a method
        return lambda _self, *args, **kwargs: told.append((event, args, kwargs))

    observer = type("Observer", (PoolObserver,), {event: teller(event) for event in events})()
    async with answering() as origin, pair.client(observers=[observer], name="mine") as client:
        await client.get(origin.url)
    assert {event for event, _, _ in told} >= {"open", "checkout", "checkin", "close"}
    assert all(origin.url in f"{args} {kwargs}" for _, args, kwargs in told), told


async def test_max_per_origin_holds_for_each_origin(pair: Pair) -> None:
    now = {"one": 0, "two": 0}
    most = dict(now)

    def counting(name: str) -> Any:  # noqa: ANN401 # an answer
        async def answer(visitor: Visitor, request: Request) -> None:
            now[name] += 1
            most[name] = max(most[name], now[name])
            await trio.sleep(0.002)
            now[name] -= 1
            await visitor.answer()

        return answer

    async with (
        answering(counting("one")) as one,
        answering(counting("two")) as two,
        pair.client(max_per_origin=2) as client,
    ):
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(client.get, one.url)
                nursery.start_soon(client.get, two.url)
        assert most == {"one": 2, "two": 2}
        assert (one.server.accepted, two.server.accepted) == (2, 2)


async def test_max_uses_retires_a_connection(pair: Pair) -> None:
    async with answering() as origin, pair.client(max_uses=3) as client:
        for _ in range(9):
            assert (await client.get(origin.url)).text == "ok"
        assert origin.server.accepted == 3


async def test_max_age_retires_a_connection(pair: Pair, mock_clock: MockClock) -> None:
    limits = pair.limits(10, 10, None)
    async with answering() as origin, pair.client(max_age=100.0, limits=limits, timeout=None) as client:
        await client.get(origin.url)
        mock_clock.jump(80)
        await client.get(origin.url)
        assert origin.server.accepted == 1
        mock_clock.jump(21)
        await client.get(origin.url)
        assert origin.server.accepted == 2
        await until(lambda: origin.server.living == 1)


async def test_max_waiting_refuses_at_once(pair: Pair) -> None:
    transport = pair.make(limits=pair.limits(1), max_waiting=1)
    async with (
        answering() as origin,
        pair.over(transport) as client,
        trio.open_nursery() as nursery,
        client.stream("GET", origin.url) as response,
    ):
        nursery.start_soon(client.get, origin.url)
        await until(lambda: total(transport, "waiting") == 1)
        with trio.fail_after(1), pytest.raises(pair.httpx.PoolTimeout):
            await client.get(origin.url)
        await response.aread()


@pytest.mark.parametrize(
    "option", [{"max_uses": 0}, {"max_age": -1}, {"max_per_origin": 0}, {"max_waiting": -1}, {"origin_idle": 0}]
)
async def test_an_option_that_makes_no_sense_is_refused_by_its_name(pair: Pair, option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        pair.make(**option)


async def test_an_unknown_option_is_refused(pair: Pair) -> None:
    with pytest.raises(TypeError, match="max_conections"):
        pair.make(max_conections=3)
