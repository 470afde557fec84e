"""`max_connections` caps all origins together, idle connections alone count as kept alive, and origins share fairly."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import trio

from tests.http.figures import check_books, leases, total
from tests.http.servers.hanging import nobody_accepts
from tests.http.servers.http1 import Origin, Visitor, answering
from tests.http.servers.listening import pause, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    from tests.http.pairs import Pair
    from tests.http.servers.http1 import Request


class Counter:
    """Counts the requests that are being answered."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0

    async def __call__(self, visitor: Visitor, request: Request) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        await trio.sleep(0.001)
        self.now -= 1
        await visitor.answer()


async def origins(
    stack: AsyncExitStack, count: int, answer: Callable[[Visitor, Request], Awaitable[object]] | None = None
) -> list[Origin]:
    return [await stack.enter_async_context(answering(answer)) for _ in range(count)]


async def test_no_more_connections_than_the_limit_to_one_origin(pair: Pair) -> None:
    counter = Counter()
    async with answering(counter) as origin, pair.client(limits=pair.limits(5, 5)) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(client.get, origin.url)
        assert (counter.most, origin.server.most_at_once) == (5, 5)
        assert origin.server.accepted == 5


async def test_no_more_connections_than_the_limit_to_all_origins_together(pair: Pair) -> None:
    counter = Counter()
    transport = pair.make(limits=pair.limits(4, 4))
    async with AsyncExitStack() as stack, pair.over(transport) as client:
        sites = await origins(stack, 8, counter)
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, sum(site.server.living for site in sites))
                assert total(transport, "size") <= 4
                await trio.lowlevel.checkpoint()

        async def ask(site: Origin) -> None:
            assert (await client.get(site.url)).text == "ok"

        async with trio.open_nursery() as watching:
            watching.start_soon(watch)
            async with trio.open_nursery() as nursery:
                for _ in range(6):
                    for site in sites:
                        nursery.start_soon(ask, site)
            watching.cancel_scope.cancel()
        assert counter.most <= 4
        # A server learns of a close a moment after it was made.
        assert most <= 4 + 4
        assert total(transport, "size") <= 4
        check_books(transport)
        await until(lambda: sum(site.server.living for site in sites) <= 4)


async def test_connections_that_are_closed_after_each_answer_make_room_one_by_one(pair: Pair) -> None:
    async def close(visitor: Visitor, request: Request) -> bool:
        await visitor.answer(b"ok", "Connection: close")
        return False

    transport = pair.make(limits=pair.limits(1))
    async with answering(close) as origin, pair.over(transport) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(client.get, origin.url)
        assert origin.server.accepted == len(origin.requests) == 10
        assert total(transport, "size") == 0
        check_books(transport)


async def test_an_idle_connection_makes_room_for_another_origin(pair: Pair) -> None:
    transport = pair.make(limits=pair.limits(1))
    async with answering() as one, answering() as two, pair.over(transport) as client:
        for _ in range(3):
            for site in (one, two):
                with trio.fail_after(5):
                    assert (await client.get(site.url)).text == "ok"
        assert total(transport, "size") == 1
        assert (one.server.accepted, two.server.accepted) == (3, 3)


async def test_the_connection_idle_longest_makes_room(pair: Pair) -> None:
    async with AsyncExitStack() as stack, pair.client(limits=pair.limits(3)) as client:
        sites = await origins(stack, 4)
        for site in sites[:3]:
            await client.get(site.url)
        await client.get(sites[0].url)
        await client.get(sites[3].url)
        await until(lambda: not sites[1].server.living)
        assert [site.server.living for site in sites] == [1, 0, 1, 1]


async def test_a_waiter_is_served_as_soon_as_another_origin_s_connection_comes_free(pair: Pair) -> None:
    transport = pair.make(limits=pair.limits(1))
    async with answering() as one, answering() as two, pair.over(transport) as client:
        done = trio.Event()

        async def ask() -> None:
            assert (await client.get(two.url)).text == "ok"
            done.set()

        async with trio.open_nursery() as nursery:
            async with client.stream("GET", one.url) as response:
                nursery.start_soon(ask)
                await until(lambda: total(transport, "waiting") == 1)
                assert not done.is_set()
                await response.aread()
            with trio.fail_after(5):
                await done.wait()


async def test_origins_share_the_connections_fairly(pair: Pair) -> None:
    counter = Counter()
    async with AsyncExitStack() as stack, pair.client(limits=pair.limits(4), timeout=30.0) as client:
        greedy, *modest = await origins(stack, 4, counter)
        served: list[str] = []

        async def ask(site: Origin) -> None:
            await client.get(site.url)
            served.append(site.url)

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(ask, greedy)
            await until(lambda: len(served) >= 4)
            for _ in range(5):
                for site in modest:
                    nursery.start_soon(ask, site)
        last_of_the_modest = max(index for index, url in enumerate(served) if url != greedy.url)
        assert last_of_the_modest < 120, "the modest ones waited for the greedy one to end"


async def test_one_hanging_origin_never_starves_the_others(pair: Pair) -> None:
    timeout = pair.timeout(connect=60.0, pool=5.0)
    with nobody_accepts() as hanging:
        transport = pair.make(limits=pair.limits(10))
        async with (
            answering() as origin,
            pair.over(transport, timeout=timeout) as client,
            trio.open_nursery() as nursery,
        ):
            for _ in range(5):
                nursery.start_soon(client.get, hanging)
            await until(lambda: total(transport, "opening") == 5)
            with trio.fail_after(5):
                for _ in range(50):
                    assert (await client.get(origin.url)).text == "ok"
            nursery.cancel_scope.cancel()


async def test_an_origin_that_hangs_in_its_answers_leaves_room_for_others_once_they_are_given_up(pair: Pair) -> None:
    async def never(visitor: Visitor, request: Request) -> None:
        await trio.sleep_forever()

    transport = pair.make(limits=pair.limits(3))
    async with answering(never) as hanging, answering() as origin, pair.over(transport) as client:

        async def give_up() -> None:
            with pytest.raises(pair.httpx.ReadTimeout):
                await client.get(hanging.url, timeout=pair.timeout(read=0.05))

        async with trio.open_nursery() as nursery:
            for _ in range(9):
                nursery.start_soon(give_up)
            with trio.fail_after(5):
                for _ in range(10):
                    assert (await client.get(origin.url)).text == "ok"
        assert leases(transport) == 0
        check_books(transport)


async def test_idle_connections_alone_count_as_kept_alive(pair: Pair) -> None:
    # httpcore #920: with six busy connections, none of those that came free was kept.
    proceed = trio.Event()

    async def answer(visitor: Visitor, request: Request) -> None:
        if request.target == "/held":
            await proceed.wait()
        await visitor.answer()

    transport = pair.make(limits=pair.limits(10, 2))
    async with answering(answer) as origin, pair.over(transport) as client, trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(client.get, f"{origin.url}/held")
        await until(lambda: len(origin.requests) == 6)
        for _ in range(5):
            await client.get(origin.url)
        assert origin.server.accepted == 7
        assert total(transport, "idle") == 1
        proceed.set()
        await until(lambda: total(transport, "idle") == 2 and not leases(transport))
        await until(lambda: origin.server.living == 2)


async def test_no_more_idle_connections_than_the_limit_over_all_origins(pair: Pair) -> None:
    transport = pair.make(limits=pair.limits(None, 3))
    async with AsyncExitStack() as stack, pair.over(transport) as client:
        sites = await origins(stack, 6)
        for site in sites:
            assert (await client.get(site.url)).text == "ok"
            assert total(transport, "idle") <= 3
        await until(lambda: sum(site.server.living for site in sites) == 3)


async def test_without_keepalive_every_request_has_its_own_connection(pair: Pair) -> None:
    transport = pair.make(limits=pair.limits(10, 0))
    async with answering() as origin, pair.over(transport) as client:
        for _ in range(5):
            assert (await client.get(origin.url)).text == "ok"
            assert total(transport, "idle") == 0
        assert origin.server.accepted == 5
        await origin.server.until_empty()


async def test_an_idle_connection_expires_by_itself(pair: Pair, mock_clock: MockClock) -> None:
    transport = pair.make(limits=pair.limits(10, 10, 5.0))
    async with answering() as origin, pair.over(transport, timeout=None) as client:
        await client.get(origin.url)
        mock_clock.jump(4.9)
        await client.get(origin.url)
        assert origin.server.accepted == 1
        mock_clock.jump(4.9)
        await client.get(origin.url)
        assert origin.server.accepted == 1
        mock_clock.jump(5.1)
        await until(lambda: not origin.server.living)
        assert total(transport, "size") == 0


async def test_an_expired_connection_is_not_used_even_before_it_is_closed(pair: Pair, mock_clock: MockClock) -> None:
    async with answering() as origin, pair.client(limits=pair.limits(10, 10, 5.0), timeout=None) as client:
        for expected in (1, 2, 3):
            await client.get(origin.url)
            assert origin.server.accepted == expected
            mock_clock.jump(5.1)


async def test_an_expiry_of_zero_keeps_nothing_alive(pair: Pair) -> None:
    async with answering() as origin, pair.client(limits=pair.limits(10, 10, 0.0)) as client:
        for _ in range(3):
            await client.get(origin.url)
            await trio.sleep(0.005)
        assert origin.server.accepted == 3
        await origin.server.until_empty()


async def test_without_an_expiry_a_connection_is_kept_for_ever(pair: Pair, mock_clock: MockClock) -> None:
    async with answering() as origin, pair.client(limits=pair.limits(10, 10, None), timeout=None) as client:
        for _ in range(5):
            await client.get(origin.url)
            mock_clock.jump(100_000)
            await pause()
        assert origin.server.accepted == 1


async def test_default_limits_serve_a_thousand_tasks(pair: Pair) -> None:
    async with answering() as origin:
        transport = pair.make()
        async with pair.over(transport, timeout=60.0) as client:

            async def ask() -> None:
                assert (await client.get(origin.url)).text == "ok"

            async with trio.open_nursery() as nursery:
                for _ in range(1000):
                    nursery.start_soon(ask)
            assert origin.server.most_at_once <= 100
            assert total(transport, "idle") <= 20
            check_books(transport)


async def test_a_connection_that_is_promised_is_not_evicted(pair: Pair) -> None:
    # httpcore #1110: an idle connection that was assigned to a request was closed to make room for another.
    transport = pair.make(limits=pair.limits(2))
    async with AsyncExitStack() as stack, pair.over(transport) as client:
        sites = await origins(stack, 5)

        async def ask(number: int) -> None:
            for step in range(10):
                site = sites[(number * 7 + step) % len(sites)]
                assert (await client.get(site.url)).text == "ok"

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, number)
        check_books(transport)


async def test_waiters_are_served_in_order(pair: Pair) -> None:
    transport = pair.make(limits=pair.limits(1))
    async with answering() as origin, pair.over(transport) as client:
        async with trio.open_nursery() as nursery, client.stream("GET", origin.url) as response:
            for number in range(20):
                nursery.start_soon(client.get, f"{origin.url}/{number}")
                await until(lambda number=number: total(transport, "waiting") == number + 1)  # type: ignore[misc]
            await response.aread()
        assert origin.targets[1:] == [f"/{number}" for number in range(20)]


async def test_requests_that_waited_leave_nothing_behind(pair: Pair) -> None:
    transport = pair.make(limits=pair.limits(1))
    async with answering() as origin, pair.over(transport) as client:
        for _ in range(3):
            async with trio.open_nursery() as nursery, client.stream("GET", origin.url) as response:
                for _ in range(5):
                    nursery.start_soon(client.get, origin.url)
                await until(lambda: total(transport, "waiting") == 5)
                await response.aread()
        (worker,) = transport._workers.values()
        assert (len(worker._line), worker.waiting) == (0, 0)


async def test_a_connection_opened_for_a_request_is_not_too_many_and_no_origin_is_asked(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else every new connection costs a look at each origin, once as many are idle as may be.
    transport = pair.make(limits=pair.limits(10, 1))
    async with answering() as kept, answering() as other, pair.over(transport) as client:
        await client.get(kept.url)
        asked: list[str] = []
        monkeypatch.setattr(transport, "_tell_all", asked.append)
        for _ in range(3):
            await client.get(other.url)
        assert other.server.accepted == 3
        assert asked == []
