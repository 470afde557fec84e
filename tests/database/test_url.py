import traceback
from pathlib import Path
from typing import Any

import pytest
import trio

from nimblepool_database import Database, SQLiteWorker


async def names_in(directory: Path) -> list[str]:
    return sorted(each.name for each in await trio.Path(directory).iterdir())


async def test_a_relative_path_is_taken_from_where_the_program_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    db = Database("sqlite:///app.db")
    monkeypatch.chdir(tmp_path / "elsewhere")
    async with db:
        await db.execute("CREATE TABLE t (a)")
    assert await names_in(tmp_path) == ["app.db", "elsewhere"]
    assert await names_in(tmp_path / "elsewhere") == []


@pytest.mark.parametrize(
    ("written", "name"),
    [("a%20b.db", "a b.db"), ("a b.db", "a b.db"), ("50%25%3F.db", "50%?.db"), ("é#1.db", "é#1.db")],
)
async def test_odd_file_names(tmp_path: Path, written: str, name: str) -> None:
    async with Database(f"sqlite:///{tmp_path}/{written}") as db:
        await db.execute("CREATE TABLE t (a)")
    assert await names_in(tmp_path) == [name]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("app.db", "a database URL is one of sqlite:///path, postgresql://host/name"),
        ("", "a database URL is one of"),
        ("oracle://host/db", "a database URL is one of"),
        ("sqlite:app.db", "sqlite:///relative.db"),
        ("sqlite://app.db", "sqlite:///relative.db"),
        ("sqlite://", "sqlite:///:memory:"),
        ("sqlite:///", "needs a path"),
        ("sqlite:///?journal_mode=wal", "needs a path"),
        (
            "sqlite:///a.db?mode=ro",
            "has the options busy_timeout, commit_timeout, journal_mode, foreign_keys, not 'mode'",
        ),
        ("sqlite:///a.db?busy_timeout=soon", "busy_timeout must be a number of seconds"),
        ("sqlite:///a.db?busy_timeout=-1", "busy_timeout must be at least 0 seconds"),
        ("sqlite:///a.db?busy_timeout=nan", "busy_timeout must be at least 0 seconds"),
        ("sqlite:///a.db?commit_timeout=0", "commit_timeout must be more than 0 seconds"),
        ("sqlite:///a.db?journal_mode=fast", "journal_mode must be one of 'wal', 'delete'"),
        ("sqlite:///a.db?foreign_keys=maybe", "foreign_keys must be one of on, true, 1, off, false, 0"),
        ("sqlite:///a.db?foreign_keys=on&foreign_keys=off", "foreign_keys twice"),
    ],
)
def test_a_wrong_url_says_what_is_allowed(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        Database(url)


def test_the_worker_checks_the_same() -> None:
    with pytest.raises(ValueError, match="needs a path"):
        SQLiteWorker("")
    with pytest.raises(ValueError, match="journal_mode"):
        SQLiteWorker("a.db", journal_mode="WAL; DROP TABLE t")


def test_wrong_pool_options_are_refused_when_the_database_is_made(url: str) -> None:
    with pytest.raises(ValueError, match="max_size"):
        Database(url, max_size=0)
    with pytest.raises(ValueError, match="min_size must be at most max_size"):
        Database(url, min_size=5)
    options: dict[str, Any] = {"max_connections": 3}
    with pytest.raises(TypeError, match="max_connections"):
        Database(url, **options)
    nonsense: Any = 5
    with pytest.raises(TypeError, match="a URL or a DatabaseWorker, not as int"):
        Database(nonsense)
    with pytest.raises(TypeError, match="row_factory"):
        SQLiteWorker("a.db", row_factory=nonsense)


def test_a_password_is_not_repeated() -> None:
    for url in (
        "oracle://me:secret@host/db",
        "mysql://me:secret@host/db?x=1",
        "postgresql://me:secret@host/db?no_such_option=1",
        "sqlite://me:secret@host/app.db",
    ):
        with pytest.raises(ValueError, match=r".") as caught:
            Database(url)
        assert "secret" not in "".join(traceback.format_exception(caught.value))
