import re
import shutil
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def run(name: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [sys.executable, "-W", "error", EXAMPLES / name]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def test_every_question_is_answered_though_the_server_is_killed(tmp_path: Path) -> None:
    done = run("websocket_jsonrpc.py", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "killing the server" in done.stdout
    assert "the server may have acted on it" in done.stdout
    assert "50 of 50 answers are right; 2 sockets were opened, 1 lost" in done.stdout


def test_a_slow_reader_of_the_chat_holds_up_nobody(tmp_path: Path) -> None:
    done = run("websocket_chat.py", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    quick = re.findall(r"^(tea|coffee), wait, quick: read 20 posts, missed 0$", done.stdout, re.MULTILINE)
    slow = re.findall(r"^(tea|coffee), drop_oldest, slow: read (\d+) posts, missed (\d+)$", done.stdout, re.MULTILINE)
    assert sorted(quick) == ["coffee", "tea"]
    assert [int(read) + int(missed) for _, read, missed in slow] == [20, 20]
    assert "1 socket carried 40 posts to 4 readers" in done.stdout


def test_pages_are_driven_where_there_is_a_browser(tmp_path: Path) -> None:
    done = run("websocket_devtools.py", tmp_path)
    if not any(map(shutil.which, BROWSERS)):
        assert done.returncode == 1
        assert "needs one of chromium" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert sorted(re.findall(r"^page (\d+), (\d+)$", done.stdout, re.MULTILINE)) == sorted(
        (str(n), str(n**2)) for n in range(10)
    )
    assert "10 pages over 1 socket" in done.stdout
