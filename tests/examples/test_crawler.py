import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from examples.crawler import FAILURES, Log, Page, Site, checks, report
from nimblepool import PoolStats, PoolWorker, open_pool

CRAWLER = Path(__file__).parents[2] / "examples" / "crawler.py"
PAGES = 9


def test_every_page_is_read_and_a_pipe_gets_plain_lines(tmp_path: Path) -> None:
    command: list[str | Path] = [sys.executable, "-W", "error", CRAWLER, "--pages", "300", "--delay", "0.001"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "300 of 300 known pages read" in done.stdout
    assert len(re.findall(r"^/pages/7, attempt \d: peer closed connection", done.stdout, re.MULTILINE)) == FAILURES
    assert re.search(r"^  requests +302$", done.stdout, re.MULTILINE)


def test_ends_quietly_when_interrupted(tmp_path: Path) -> None:
    command: list[str | Path] = [sys.executable, "-W", "error", CRAWLER, "--pages", "1000000"]
    crawler = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert crawler.stdout is not None
    assert any("known pages read" in line for line in crawler.stdout)
    crawler.send_signal(signal.SIGINT)
    rest, errors = crawler.communicate(timeout=60)
    assert (crawler.returncode, errors) == (130, "")
    assert rest.splitlines()[-1] == "interrupted"


def test_asks_for_pages_that_make_sense() -> None:
    command: list[str | Path] = [sys.executable, CRAWLER, "--pages", "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "--pages must be greater than 7" in done.stderr


@pytest.mark.parametrize("pages", [8, 100, 1234])
def test_every_page_of_the_site_can_be_reached_from_the_first(pages: int) -> None:
    site = Site(pages, 0.0)
    found = {0}
    for number in range(pages):
        assert number in found
        links = [site.number(link) for link in Page(site.page(number).decode()).links]
        found.update(links)
    assert found == set(range(pages))


class TokenWorker(PoolWorker[object]):
    async def init(self) -> object:
        return object()


async def lend(times: int, removed: int) -> PoolStats:
    async with open_pool(TokenWorker(), max_size=1) as pool:
        for number in range(times):
            async with pool.checkout() as lease:
                if number < removed:
                    lease.remove()
        return pool.stats


@pytest.fixture
def stats() -> PoolStats:
    """The books of a pool that lent one resource for each page, and one that was lost for each failure."""
    return trio.run(lend, PAGES + FAILURES, FAILURES)


@pytest.fixture
def site() -> Site:
    site = Site(PAGES, 0.0)
    site.visitors.add(("127.0.0.1", 1))
    return site


@pytest.fixture
def log() -> Log:
    pages = {httpx.URL(f"http://site/pages/{number}"): f"page {number}" for number in range(PAGES)}
    return Log(titles=pages, requests=PAGES + FAILURES, failures=FAILURES)


def complaints(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.removeprefix("  NO   ") for line in capsys.readouterr().out.splitlines() if "NO " in line]


def test_exits_with_0_when_all_holds(
    stats: PoolStats, log: Log, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(stats, log, site) == 0
    assert complaints(capsys) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"started": 12, "direct": 9}, "each lease is one request of the crawler's: 12"),
        ({"lost": 3}, "each time cost a connection, and nothing else did: 3"),
        ({"opened": 0, "closed": -1}, "the site saw no more connections than were opened: 1"),
        ({"leases": 1}, "no response holds a connection any more"),
    ],
    ids=["lent one twice", "lost another", "opened one in secret", "kept a lease"],
)
def test_the_transport_s_books_must_be_right(
    stats: PoolStats, log: Log, site: Site, change: dict[str, Any], complaint: str
) -> None:
    results = checks(replace(stats, **change), log, site)
    assert [statement for statement, holds in results.items() if not holds] == [complaint]


def test_exits_with_1_when_an_answer_was_mixed_up(
    stats: PoolStats, log: Log, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    log.titles[httpx.URL("http://site/pages/3")] = "page 4"
    assert report(stats, log, site) == 1
    assert complaints(capsys) == ["each answer is the page that was asked for"]


def test_exits_with_1_when_a_page_is_missing(
    stats: PoolStats, log: Log, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    log.titles.popitem()
    log.failures += 1
    assert report(stats, log, site) == 1
    assert complaints(capsys) == ["all of the 9 pages were read", "only the page that breaks off did so: 3 times"]
