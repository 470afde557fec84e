import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("block", "printed"),
    [(0, ["b'hello'", "1 open, 0 leased"]), (1, ["[('Ada',)]"]), (2, []), (3, ["a session of blue", "{'blue': 1}"])],
    ids=["custom worker", "sqlite", "http", "keyed"],
)
def test_a_code_block_runs_as_it_stands(tmp_path: Path, block: int, printed: list[str]) -> None:
    command = [sys.executable, "-W", "error", "-c", BLOCKS[block]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == printed


def test_every_code_block_is_run() -> None:
    assert len(BLOCKS) == 4


def test_the_worker_fits_in_twelve_lines() -> None:
    worker = BLOCKS[0].split("async def echo")[0]
    assert len([line for line in worker.splitlines() if line]) <= 12


def test_every_target_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE))
    assert named
    assert named <= targets


def test_every_path_it_names_exists() -> None:
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", README)
    cells = re.findall(r"^\| `([^`]+[/.][^`]*)` \|", README, re.MULTILINE)
    missing = [path for path in [*links, *cells] if not (ROOT / path).exists()]
    assert len(cells) >= 5
    assert missing == []
