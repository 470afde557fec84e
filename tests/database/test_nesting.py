from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from nimblepool.testing import check_balance
from nimblepool_database import Connection, Database


class FailureError(Exception):
    pass


@dataclass
class Block:
    """A transaction and what happens in it: numbers are added, inner blocks run; then it ends, or fails."""

    steps: "list[int | Block]" = field(default_factory=list)
    fails: bool = False


def blocks(inner: st.SearchStrategy[Block]) -> st.SearchStrategy[Block]:
    return st.builds(Block, st.lists(st.one_of(st.integers(1, 9), inner), max_size=4), st.booleans())


BLOCKS = st.recursive(st.builds(Block, st.lists(st.integers(1, 9), max_size=3), st.booleans()), blocks, max_leaves=8)


async def run(open_block: Callable[[], AbstractAsyncContextManager[Connection]], block: Block) -> None:
    try:
        async with open_block() as inner:
            for step in block.steps:
                if isinstance(step, Block):
                    await run(inner.transaction, step)
                else:
                    await inner.execute(f"INSERT INTO done VALUES ({step})")
            if block.fails:
                raise FailureError
    except FailureError:
        pass


def kept(block: Block) -> list[int]:
    """The model: what a block leaves behind, which is nothing if it fails."""
    if block.fails:
        return []
    return [n for step in block.steps for n in (kept(step) if isinstance(step, Block) else [step])]


async def agrees(url: str, tree: list[Block], *, sandboxed: bool) -> None:
    async with Database(url, max_size=2) as db:
        await db.execute("CREATE TABLE IF NOT EXISTS done (n INTEGER)")
        await db.execute("DELETE FROM done")
        expected = [n for block in tree for n in kept(block)]
        if sandboxed:
            async with db.sandbox():
                for block in tree:
                    await run(db.transaction, block)
                assert [n for (n,) in await db.fetch_all("SELECT n FROM done")] == expected
            assert await db.fetch_all("SELECT n FROM done") == []
        else:
            for block in tree:
                await run(db.transaction, block)
            assert [n for (n,) in await db.fetch_all("SELECT n FROM done")] == expected
        check_balance(db.pool)
        check_balance(db.writer_pool)


@pytest.mark.parametrize("sandboxed", [False, True], ids=["real", "sandbox"])
@given(tree=st.lists(BLOCKS, min_size=1, max_size=3))
@settings(max_examples=40, deadline=None)
def test_random_nesting_with_random_failures_equals_the_model(sandboxed: bool, tree: list[Block]) -> None:
    with TemporaryDirectory() as directory:
        trio.run(partial(agrees, f"sqlite:///{Path(directory) / 'app.db'}", tree, sandboxed=sandboxed))


@given(tree=st.lists(BLOCKS, min_size=1, max_size=3))
@settings(max_examples=20, deadline=None)
def test_the_same_on_a_server(postgres_url_for_all: str, tree: list[Block]) -> None:
    for sandboxed in (False, True):
        trio.run(partial(agrees, postgres_url_for_all, tree, sandboxed=sandboxed))
