import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from examples.demo import Tally, report
from nimblepool import PoolStats, PoolWorker, open_pool

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


def test_the_books_balance_and_a_pipe_gets_plain_lines(tmp_path: Path) -> None:
    command: list[str | Path] = [sys.executable, "-W", "error", DEMO, "--seconds", "1", "--tasks", "50"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "broke one connection on purpose" in done.stdout
    answers = re.search(r"yes +all ([\d,]+) answers agree", done.stdout)
    assert answers is not None
    assert int(answers[1].replace(",", "")) > 50
    rows = re.findall(r"loading: ([\d,]+) rows, 100%", done.stdout)
    assert int(rows[0].replace(",", "")) > 130_000
    assert list(tmp_path.iterdir()) == []


def test_ends_quietly_when_interrupted(tmp_path: Path) -> None:
    command: list[str | Path] = [sys.executable, "-W", "error", DEMO, "--seconds", "100"]
    demo = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert demo.stdout is not None
    assert any("loading" in line for line in demo.stdout)
    demo.send_signal(signal.SIGINT)
    rest, errors = demo.communicate(timeout=60)
    assert (demo.returncode, errors) == (130, "")
    assert rest.splitlines()[-1] == "interrupted"


class TokenWorker(PoolWorker[object]):
    async def init(self) -> object:
        return object()


async def lend_twice() -> PoolStats:
    async with open_pool(TokenWorker(), max_size=1) as pool:
        async with pool.checkout() as lease:
            lease.remove()
        async with pool.checkout():
            pass
    return pool.stats


@pytest.fixture
def stats() -> PoolStats:
    """The books of a pool that lent twice, and lost one of the two resources that it opened."""
    return trio.run(lend_twice)


@pytest.fixture
def tally() -> Tally:
    return Tally(leases=2, served=Counter({0: 1, 1: 1}))


def test_exits_with_0_when_all_holds(stats: PoolStats, tally: Tally, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(stats, tally) == 0
    assert "NO " not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("doctor", "complaint"),
    [
        (lambda books: replace(books, started=books.started + 1), "each checkout is accounted for: 3 started, 2 ended"),
        (lambda books: replace(books, timed_out=1), "each checkout is accounted for: 2 started, 3 ended"),
        (lambda books: replace(books, closed=1), "each connection was closed: 2 opened, 1 closed, 0 left"),
        (lambda books: replace(books, size=1), "each connection was closed: 2 opened, 2 closed, 1 left"),
        (lambda books: replace(books, lost=2), "the broken connection was replaced, and no other: 2"),
    ],
    ids=["lost a checkout", "counted one twice", "lost a connection", "left one open", "broke another"],
)
def test_exits_with_1_when_the_books_are_wrong(
    stats: PoolStats,
    tally: Tally,
    capsys: pytest.CaptureFixture[str],
    doctor: Callable[[PoolStats], PoolStats],
    complaint: str,
) -> None:
    assert report(doctor(stats), tally) == 1
    assert [line for line in capsys.readouterr().out.splitlines() if "NO " in line] == [f"  NO   {complaint}"]


@pytest.mark.parametrize(
    ("tally", "complaint"),
    [
        (Tally(leases=3, served=Counter({0: 2})), "each lease went to a task: 2 lent, 3 received"),
        (Tally(leases=2, served=Counter({0: 2}), wrong=Counter(by_name=1)), "all 2 answers agree with unicodedata"),
        (Tally(leases=2), "all 0 answers agree with unicodedata"),
    ],
    ids=["lent one twice", "wrong answer", "no answer"],
)
def test_exits_with_1_when_the_tasks_disagree(
    stats: PoolStats, tally: Tally, capsys: pytest.CaptureFixture[str], complaint: str
) -> None:
    assert report(stats, tally) == 1
    assert [line for line in capsys.readouterr().out.splitlines() if "NO " in line] == [f"  NO   {complaint}"]
