import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from nimblepool_database._sqlite import _statements


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(_statements.connect(":memory:")) as connection:
        _statements.execute(connection, "CREATE TABLE t (a)")
        yield connection


@pytest.mark.parametrize("inside", [False, True], ids=["autocommit", "in a transaction"])
def test_what_an_interrupt_undoes_is_undone_however_often_it_is_repeated(
    connection: sqlite3.Connection, *, inside: bool
) -> None:
    answers = iter([False, False, True])
    interrupts = 0

    def stopping() -> bool:
        stop = next(answers)
        if stop:
            connection.set_progress_handler(interrupt, 1)
        return stop

    def interrupt() -> bool:
        nonlocal interrupts
        interrupts += 1
        return interrupts < 10

    if inside:
        _statements.begin(connection)
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        _statements.execute_many(connection, "INSERT INTO t VALUES (?)", [(1,)] * 5, stopping)
    assert interrupts >= 10
    assert connection.in_transaction is inside
    assert _statements.fetch_all(connection, "SELECT * FROM t") == []
