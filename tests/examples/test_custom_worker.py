import ast
import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_worker.py"


def test_answers_everything_though_one_subprocess_is_killed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLE], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    answers = {
        int(n): int(square) for n, square in re.findall(r"^ *(\d+) squared is (\d+)$", done.stdout, re.MULTILINE)
    }
    assert answers == {n: n * n for n in range(1, 13)}
    killed = re.findall(r"killing process (\d+)", done.stdout)
    closed = dict(re.findall(r"process (\d+) is closed \((.+)\)", done.stdout))
    assert "13 checkouts, 4 processes opened, 1 lost, 3 alive" in done.stdout.splitlines()
    assert [pid for pid, reason in closed.items() if reason != "pool closed"] == killed
    assert len(closed) == 4


def test_the_worker_is_short_enough_to_show() -> None:
    tree = ast.parse(EXAMPLE.read_text())
    (worker,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    assert worker.end_lineno is not None
    assert worker.end_lineno - worker.lineno + 1 <= 30
