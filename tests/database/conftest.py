import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nimblepool_database import Database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith("sqlite ")]
    assert left == []


@pytest.fixture
async def counter(url: str) -> str:
    """The URL of a database with one counter, ``tally.n``, at 0."""
    async with Database(url) as db:
        await db.execute("CREATE TABLE tally (n INTEGER)")
        await db.execute("INSERT INTO tally VALUES (0)")
    return url
