"""What docs/states.md says is so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from nimblepool import PoolUnavailable, Reason, open_pool
from nimblepool._slot import TRANSITIONS, SlotState
from nimblepool.testing import Fail, FakeWorker, Slow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

DOCS = Path(__file__).parents[2] / "docs"
GENERATOR = DOCS / "generate_states.py"


def generate(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the document with its generator, which may be spoilt."""
    for name in ("generate_states.py", "states.md"):
        (tmp_path / name).write_text((DOCS / name).read_text(encoding="utf-8"), encoding="utf-8")
    return tmp_path


def test_the_document_is_what_the_table_makes_of_it() -> None:
    done = generate(GENERATOR, "--check")
    assert (done.returncode, done.stderr) == (0, ""), "run python docs/generate_states.py"


def test_a_stale_document_is_noticed_and_made_anew(copy: Path) -> None:
    document = copy / "states.md"
    fresh = document.read_text(encoding="utf-8")
    document.write_text(
        fresh.replace("closing --> closed : terminated", "closing --> idle : terminated"), encoding="utf-8"
    )
    done = generate(copy / "generate_states.py", "--check")
    assert (done.returncode, done.stderr) == (1, "states.md is stale: run python docs/generate_states.py\n")
    assert "closing --> idle" in document.read_text(encoding="utf-8")
    assert generate(copy / "generate_states.py").returncode == 0
    assert document.read_text(encoding="utf-8") == fresh


def test_a_document_without_its_marks_is_left_alone(copy: Path) -> None:
    document = copy / "states.md"
    document.write_text("# Mine\n", encoding="utf-8")
    done = generate(copy / "generate_states.py")
    assert done.returncode == 1
    assert "must hold the lines" in done.stderr
    assert document.read_text(encoding="utf-8") == "# Mine\n"


def test_diagram_and_table_say_every_transition() -> None:
    text = (DOCS / "states.md").read_text(encoding="utf-8")
    arrows = {
        (source, event, target)
        for source, target, label in re.findall(r"^    (\w+) --> (\w+) : (.+)$", text, re.MULTILINE)
        for event in label.split(", ")
    }
    rows = {
        (source, event, target)
        for source, event, targets in re.findall(r"^\| (\w+) \| `(\w+)` \| (.+) \|$", text, re.MULTILINE)
        for target in targets.split(" or ")
    }
    expected = {
        (source.value, event, target.value)
        for source, events in TRANSITIONS.items()
        for event, targets in events.items()
        for target in targets
    }
    assert arrows == rows == expected


def test_every_state_is_explained() -> None:
    text = (DOCS / "states.md").read_text(encoding="utf-8")
    explained = re.findall(r"^\| (\w+) \| [^|]+ \|$", text, re.MULTILINE)
    assert explained == ["state", *(state.value for state in SlotState)]


async def come_one_by_one(client: Callable[[str], Awaitable[None]]) -> None:
    async with trio.open_nursery() as nursery:
        for name in ("Ada", "Bob", "Cy"):
            nursery.start_soon(client, name)
            await wait_all_tasks_blocked()


async def test_the_example_of_the_three_who_wait_is_true() -> None:
    worker = FakeWorker()
    worker.always("terminate", Slow(3))
    served: list[tuple[str, int]] = []
    async with open_pool(worker, max_size=1, ping_after=60) as pool:
        await pool.wait_ready()
        await trio.sleep(3600)
        worker.resources[0].kill()

        async def client(name: str) -> None:
            async with pool.checkout(timeout=1) as lease:
                served.append((name, lease.resource.number))

        await come_one_by_one(client)
        assert served == [("Ada", 2), ("Bob", 2), ("Cy", 2)]
        assert worker.resources[0].terminated == [Reason.PING]
        assert pool.stats.closing == 1


@pytest.mark.parametrize("policy", ["raise", "wait"])
async def test_the_other_end_of_the_example_is_true(policy: Literal["raise", "wait"]) -> None:
    worker = FakeWorker()
    outcomes: list[str] = []
    async with open_pool(worker, max_size=1, ping_after=60, on_open_failure=policy) as pool:
        await pool.wait_ready()
        await trio.sleep(3600)
        worker.resources[0].kill()
        worker.script("init", Fail(OSError("refused")))

        async def client(name: str) -> None:
            try:
                async with pool.checkout():
                    outcomes.append(name)
            except PoolUnavailable as error:
                outcomes.append(f"not {name}: {error.__cause__}")

        await come_one_by_one(client)
    assert outcomes == (["Ada", "Bob", "Cy"] if policy == "wait" else ["not Ada: refused", "Bob", "Cy"])
