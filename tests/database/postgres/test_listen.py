from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest
import trio

from nimblepool_database._postgres import _listen
from nimblepool_database._postgres._worker import PostgresWorker
from tests.database.postgres.pools import PATIENCE, ask, until
from tests.database.postgres.server import PostgresServer


async def take(notifications: AsyncIterator[Any], count: int) -> list[tuple[str, str]]:
    with trio.fail_after(PATIENCE):
        got = [await anext(notifications) for _ in range(count)]
    return [(notify.channel, notify.payload) for notify in got]


async def test_notifications_arrive_in_order_from_every_channel(postgres_url: str) -> None:
    async with PostgresWorker(postgres_url).listen(["ones", "twos"]) as notifications:
        for n in range(1, 4):
            ask(postgres_url, f"NOTIFY ones, '{n}'")
            ask(postgres_url, f"NOTIFY twos, '{n}'")
            ask(postgres_url, f"NOTIFY threes, '{n}'")
        expected = [(name, str(n)) for n in range(1, 4) for name in ("ones", "twos")]
        assert await take(notifications, 6) == expected


@pytest.mark.parametrize("name", ["Ünïcode", 'with "quotes"', "; DROP TABLE x", "Case", "spaced out", "a" * 63])
async def test_any_name_can_be_a_channel(postgres_url: str, name: str) -> None:
    async with PostgresWorker(postgres_url).listen([name]) as notifications:
        ask(postgres_url, "SELECT pg_notify(%s, 'payload')", name)
        assert await take(notifications, 1) == [(name, "payload")]


@pytest.mark.parametrize("channels", [[], (), "name", [""], ["a" * 64], ["a\0b"], [3]])
async def test_what_cannot_be_a_channel_is_refused(postgres_url: str, channels: Any) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match="channel"):
        async with PostgresWorker(postgres_url).listen(channels):
            pass


async def test_a_wait_that_is_cancelled_loses_nothing_and_ends_nothing(postgres_url: str) -> None:
    async with PostgresWorker(postgres_url).listen(["c"]) as notifications:
        for n in range(30):
            with trio.move_on_after(0.01) as scope:
                await anext(notifications)
            assert scope.cancelled_caught
            ask(postgres_url, f"NOTIFY c, '{n}'")
            assert await take(notifications, 1) == [("c", str(n))]


async def test_none_is_lost_however_the_waits_are_cancelled(postgres_url: str) -> None:
    got: list[int] = []

    async def send() -> None:
        def all_of_them() -> None:
            with psycopg.connect(postgres_url, autocommit=True) as conn:
                for n in range(300):
                    conn.execute("SELECT pg_notify('c', %s)", (str(n),))

        await trio.to_thread.run_sync(all_of_them)

    async with PostgresWorker(postgres_url).listen(["c"]) as notifications:
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                while len(got) < 300:
                    with trio.move_on_after(0.0005):
                        got.append(int((await anext(notifications)).payload))
    assert got == list(range(300))


@pytest.mark.parametrize("end", ["terminate", "stop", "kill"])
async def test_the_loss_of_the_connection_raises_the_driver_s_error(own_postgres: PostgresServer, end: str) -> None:
    ends: dict[str, Callable[[], object]] = {
        "terminate": lambda: ask(own_postgres.url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                                                   "WHERE query LIKE 'LISTEN%%'"),
        "stop": own_postgres.stop,
        "kill": own_postgres.kill,
    }  # fmt: skip
    async with PostgresWorker(own_postgres.url).listen(["c"]) as notifications:
        ask(own_postgres.url, "NOTIFY c, 'last'")
        assert await take(notifications, 1) == [("c", "last")]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, ends[end])
            for _ in range(2):
                with trio.fail_after(PATIENCE), pytest.raises(psycopg.OperationalError):
                    await anext(notifications)


async def test_a_silent_loss_is_found_by_asking(own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async with PostgresWorker(own_postgres.url, cancel_timeout=0.1).listen(["c"]) as notifications:
        assert isinstance(notifications, _listen.Notifications)
        monkeypatch.setattr(notifications, "_silence", 0.1)
        monkeypatch.setattr(notifications, "_patience", 0.2)
        with trio.move_on_after(0.5) as scope:
            await anext(notifications)
        assert scope.cancelled_caught
        ask(own_postgres.url, "NOTIFY c, 'still there'")
        assert await take(notifications, 1) == [("c", "still there")]
        with own_postgres.frozen(), trio.fail_after(2), pytest.raises(psycopg.OperationalError, match="silent"):
            await anext(notifications)


async def test_after_the_block_nothing_is_left_and_the_iterator_refuses(postgres_url: str) -> None:
    async with PostgresWorker(postgres_url, application_name="listens here").listen(["c"]) as notifications:
        pass
    with pytest.raises(psycopg.OperationalError):
        await anext(notifications)
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'listens here'"
    await until(lambda: ask(postgres_url, sessions) == 0)


async def test_a_server_that_cannot_be_reached_is_an_error_at_once(own_postgres: PostgresServer) -> None:
    own_postgres.stop()
    with pytest.raises(psycopg.OperationalError):
        async with PostgresWorker(own_postgres.url).listen(["c"]):
            pass
