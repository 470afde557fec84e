import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "grpc_client.py"


def test_every_question_is_answered_though_the_server_is_killed(tmp_path: Path) -> None:
    command: list[str | Path] = [sys.executable, "-W", "error", EXAMPLE]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "killing the server" in done.stdout
    assert "the server is back" in done.stdout
    (figures,) = re.findall(
        r"^(\d+) of 100 answers are right; (\d+) channels were opened, (\d+) lost$", done.stdout, re.MULTILINE
    )
    answers, opened, lost = map(int, figures)
    assert (answers, lost > 0, opened > lost) == (100, True, True)
