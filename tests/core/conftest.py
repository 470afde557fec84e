"""What the tests of the core share: the mock clock, and books that must balance at the end of every test."""

from __future__ import annotations

import inspect
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio.testing

from nimblepool._engine import Engine
from nimblepool._pool import Pool
from nimblepool.testing import check_balance

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run every asynchronous test of the core on a clock of its own, which jumps when everybody waits."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and inspect.iscoroutinefunction(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.trio(run=_run_on_mock_clock), append=False)


def _run_on_mock_clock(
    async_fn: Callable[..., Awaitable[object]],
    *args: object,
    clock: trio.abc.Clock | None = None,
    **options: Any,  # noqa: ANN401 - what pytest-trio passes on to trio.run
) -> object:
    return trio.run(async_fn, *args, clock=clock or trio.testing.MockClock(autojump_threshold=0), **options)


@pytest.fixture(autouse=True, scope="session")
def interrupts_arrive() -> None:
    """Undo that a shell lets what it starts in the background ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def balanced_books(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """At the end of every test, check each pool that it opened: it is closed, its books balance, nothing leaked."""
    opened: list[Engine[Any]] = []
    run = Engine.run

    def noting_run(engine: Engine[Any]) -> None:
        opened.append(engine)
        run(engine)

    monkeypatch.setattr(Engine, "run", noting_run)
    yield
    for engine in opened:
        assert engine.closed.is_set(), f"pool {engine.name!r} was not closed"
        check_balance(Pool(engine))
