import logging
import re
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import trio

from nimblepool import PoolUnavailable
from nimblepool_database._errors import Unsupported
from nimblepool_database._postgres import _conninfo
from nimblepool_database._postgres._worker import PostgresWorker
from tests.database.postgres.pools import check_every_connection, postgres_pool
from tests.database.postgres.server import PostgresServer

SECRET = "hunter2-s3cret"
URL = f"postgresql://me:{SECRET}@db.example:5433/app"


@pytest.mark.parametrize(
    ("option", "allowed"),
    [
        ({"statement_timeout": 0}, "more than 0 seconds"),
        ({"statement_timeout": 3_000_000}, "at most 2147483"),
        ({"statement_timeout": float("nan")}, "more than 0 seconds"),
        ({"statement_timeout": "1"}, "more than 0 seconds"),
        ({"commit_timeout": None}, "more than 0 seconds"),
        ({"commit_timeout": -1}, "more than 0 seconds"),
        ({"cancel_timeout": True}, "more than 0 seconds"),
        ({"reset": "always"}, "'auto', 'discard'"),
        ({"reset": "discard", "pgbouncer": True}, "PgBouncer"),
        ({"pgbouncer": "yes"}, "True or False"),
        ({"application_name": ""}, "printable"),
        ({"application_name": "a\nb"}, "printable"),
        ({"application_name": 3}, "printable"),
        ({"prepare_threshold": -1}, "count from 0"),
        ({"prepare_threshold": 1.5}, "count from 0"),
        ({"prepare_threshold": True}, "count from 0"),
        ({"configure": "SET x = 1"}, "a function"),
        ({"row_factory": dict}, None),
        ({"row_factory": "dict"}, "a function"),
    ],
)
def test_options_are_checked(option: dict[str, Any], allowed: str | None) -> None:
    if allowed is None:
        PostgresWorker(URL, **option)
        return
    with pytest.raises(ValueError, match=allowed) as caught:
        PostgresWorker(URL, **option)
    assert next(iter(option)) in str(caught.value)


def test_a_url_may_hold_the_worker_s_options_and_libpq_s() -> None:
    worker = PostgresWorker.from_url(
        f"{URL}?sslmode=disable&statement_timeout=2.5&reset=discard&prepare_threshold=none&commit_timeout=3"
        "&application_name=a%20b+c&pgbouncer=off&cancel_timeout=1"
    )
    options = worker._options
    assert options.statement_timeout == 2.5
    assert options.commit_timeout == 3
    assert options.cancel_timeout == 1
    assert options.reset == "discard"
    assert options.prepare_threshold is None
    assert options.pgbouncer is False
    assert options.parameters["sslmode"] == "disable"
    assert options.parameters["application_name"] == "a b+c"
    assert options.parameters["password"] == SECRET


def test_the_short_scheme_and_the_long_one_mean_the_same() -> None:
    short = PostgresWorker.from_url("postgres://me@db.example/app")
    assert repr(short) == repr(PostgresWorker.from_url("postgresql://me@db.example/app"))
    assert repr(short) == "PostgresWorker(host=db.example dbname=app user=me)"


def test_a_connection_string_may_have_libpq_s_other_form() -> None:
    worker = PostgresWorker(f"host=a,b port=1,2 user=me password='{SECRET}' target_session_attrs=read-write")
    assert worker._options.parameters["target_session_attrs"] == "read-write"


def test_a_question_mark_in_the_password_is_the_password_s() -> None:
    worker = PostgresWorker.from_url("postgresql://me:a?reset=b@db.example/app?reset=discard&sslmode=disable")
    assert worker._options.parameters["password"] == "a?reset=b"
    assert worker._options.parameters["sslmode"] == "disable"
    assert worker._options.reset == "discard"


def test_pgbouncer_gets_no_server_options_and_others_do() -> None:
    assert "statement_timeout" in PostgresWorker(URL, statement_timeout=1)._conninfo
    assert "statement_timeout" not in PostgresWorker(URL, statement_timeout=1, pgbouncer=True)._conninfo


def test_a_connection_attempt_has_a_deadline_that_can_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGCONNECT_TIMEOUT", raising=False)
    assert "connect_timeout=10" in PostgresWorker(URL)._conninfo
    assert "connect_timeout=3" in PostgresWorker(URL + "?connect_timeout=3")._conninfo
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "4")
    assert "connect_timeout=4" in PostgresWorker(URL)._conninfo


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (lambda: PostgresWorker(f"mysql://me:{SECRET}@h/db"), "begins otherwise"),
        (lambda: PostgresWorker.from_url(f"host=h password={SECRET}"), "postgresql://"),
        (lambda: PostgresWorker(f"postgresql://me:{SECRET}@h:port/db"), "1 to 65535"),
        (lambda: PostgresWorker(f"postgresql://me:{SECRET}%zz@h/db"), "percent-encoded"),
        (lambda: PostgresWorker(f"postgresql://me:x/?{SECRET}=1@h/db"), "percent-encoded"),
        (lambda: PostgresWorker(f"postgresql://me:{SECRET}@[h/db"), "percent-encoded"),
        (lambda: PostgresWorker(f"postgresql://me:p@{SECRET}@h/db"), "%40"),
        (lambda: PostgresWorker(f"postgresql://me:12/{SECRET}@h/db"), "%2F"),
        (lambda: PostgresWorker("host=h password=hunter s_ret=2"), "cannot be read"),
        (lambda: PostgresWorker(f"{URL}?sslmod=require"), "no option 'sslmod'; did you mean 'sslmode'"),
        (lambda: PostgresWorker(f"host=h pasword={SECRET}"), "did you mean 'password'"),
        (lambda: PostgresWorker(f"{SECRET}"), "cannot be read"),
        (lambda: PostgresWorker.from_url(f"{URL}?statement_timeout=soon"), "number of seconds"),
        (lambda: PostgresWorker.from_url(f"{URL}?pgbouncer=maybe"), "one of on"),
        (lambda: PostgresWorker.from_url(f"{URL}?prepare_threshold=x"), "or none"),
        (lambda: PostgresWorker.from_url(f"{URL}?reset=auto&reset=auto"), "twice"),
        (lambda: PostgresWorker(URL, commit_timeout=0), "commit_timeout"),
    ],
)
def test_no_complaint_shows_the_password(make: Callable[[], PostgresWorker], hint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(hint)) as caught:
        make()
    complaint: BaseException | None = caught.value
    while complaint is not None:
        assert SECRET not in str(complaint)
        assert SECRET not in repr(complaint)
        assert "s_ret" not in str(complaint)
        complaint = complaint.__cause__ or complaint.__context__


async def test_the_password_is_in_no_repr_no_log_no_error_and_no_figure(
    postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = postgres.password
    worker = PostgresWorker(postgres.url)
    shown: list[object] = [worker, worker._options]
    async with postgres_pool(worker, name="pg", max_size=2) as pool:
        await check_every_connection(pool, 2)
        async with pool.checkout() as lease:
            shown += [lease, lease.resource, lease.resource.raw, lease.resource.raw.info.dsn]
            with pytest.raises(psycopg.Error) as caught:
                await lease.resource.execute("SELECT nonsense")
            shown.append(caught.value)
        shown += [pool, pool.stats]
    wrong = PostgresWorker(postgres.url.replace(secret, secret + "x"))
    with pytest.raises(PoolUnavailable) as refused:
        async with postgres_pool(wrong, on_open_failure="raise") as pool, pool.checkout():
            pass
    shown += [refused.value, refused.value.__cause__, wrong]
    assert "password authentication failed" in str(refused.value.__cause__)
    assert all(secret not in text for thing in shown for text in (str(thing), repr(thing)))
    assert secret not in caplog.text


async def test_pool_options_have_defaults_that_can_be_changed() -> None:
    worker = PostgresWorker(URL)
    assert worker.pool_options({}) == {"on_open_failure": "wait", "ping_after": 10.0, "ping_timeout": 2.0}
    assert worker.pool_options({"ping_after": None, "max_size": 3})["ping_after"] is None


async def test_listening_through_pgbouncer_is_refused() -> None:
    with pytest.raises(Unsupported, match="PgBouncer"):
        async with PostgresWorker(URL, pgbouncer=True).listen(["c"]):
            pass


def test_libpq_s_options_are_known() -> None:
    assert {"host", "password", "options", "sslmode"} <= set(_conninfo.known_options())


async def test_a_cancelled_opening_leaves_no_socket(own_postgres: PostgresServer) -> None:
    with own_postgres.frozen(), trio.move_on_after(0.1) as scope:
        async with postgres_pool(own_postgres.url) as pool, pool.checkout():
            pass
    assert scope.cancelled_caught
