"""A crawler with a task for every page, all of them over ten connections, which the transport lends them in turn.

    pip install 'nimblepool[http,demo]' 'hypercorn[trio]'
    python examples/crawler.py

It crawls a site of its own, on loopback. One page breaks off in mid-body at first, and costs a connection each time;
the page is asked for again. At the end the transport's books are compared with the crawler's.
"""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import httpx
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from nimblepool_http import PooledTransport

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope

    from nimblepool import PoolStats

ATTEMPTS = 3
FLAKY = 7
"""The page that breaks off."""
FAILURES = 2
"""How many times it does."""
INTERRUPTED = 128 + signal.SIGINT


# -- the site -----------------------------------------------------------------------------------------------------


class Site:
    """An ASGI application: pages that link to each other, so that all can be reached from the first."""

    def __init__(self, pages: int, delay: float) -> None:
        self.pages = pages
        self.delay = delay
        self.failures_left = FAILURES
        self.visitors: set[tuple[str, int]] = set()

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve the lifespan or one request."""
        if scope["type"] == "lifespan":
            await self.live(receive, send)
        elif scope["type"] == "http" and scope["client"] is not None:
            self.visitors.add((scope["client"][0], scope["client"][1]))
            await trio.sleep(self.delay)
            await self.respond(send, self.number(scope["path"]))

    async def live(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Say that there is nothing to do before the first request, and after the last."""
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def respond(self, send: ASGISendCallable, number: int) -> None:
        """Send page ``number``. Who returns before all of the body was sent has Hypercorn close the connection."""
        body = self.page(number)
        headers = [(b"content-type", b"text/html"), (b"content-length", str(len(body)).encode())]
        breaks_off = number == FLAKY and self.failures_left > 0
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if breaks_off:
            self.failures_left -= 1
            body = body[: len(body) // 2]
        await send({"type": "http.response.body", "body": body, "more_body": breaks_off})

    def number(self, path: str) -> int:
        """The number in the path of a page."""
        return int(path.rpartition("/")[2])

    def page(self, number: int) -> bytes:
        """The HTML of page ``number``."""
        links = " ".join(f'<a href="/pages/{link}">{link}</a>' for link in self.links(number))
        return f"<title>page {number}</title>{links}".encode()

    def links(self, number: int) -> Iterator[int]:
        """Four pages further on, and some that are known already."""
        yield from range(4 * number + 1, min(4 * number + 5, self.pages))
        yield from (number // 2, number * 31 % self.pages)


# -- the crawler --------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What the crawler reads of a page.

    Args:
        html: the page.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.title = ""
        self.links: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take in a link."""
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]

    def handle_data(self, data: str) -> None:
        """Take in the title."""
        if self.get_starttag_text() == "<title>" and not self.title:
            self.title = data


@dataclass
class Log:
    """What the crawler did, by its own count."""

    seen: set[httpx.URL] = field(default_factory=set)
    titles: dict[httpx.URL, str] = field(default_factory=dict)
    given_up: set[httpx.URL] = field(default_factory=set)
    requests: int = 0
    failures: int = 0

    @property
    def done(self) -> int:
        """How many pages there is nothing more to do for."""
        return len(self.titles) + len(self.given_up)


class Crawler:
    """Reads each page once, in a task of its own."""

    def __init__(self, client: httpx.AsyncClient, show: Display) -> None:
        self.client = client
        self.show = show
        self.log = Log()

    async def crawl(self, start: httpx.URL) -> None:
        """Read every page that can be reached from ``start`` without leaving its host."""
        async with trio.open_nursery() as nursery:
            self.find(start, nursery)

    def find(self, url: httpx.URL, nursery: trio.Nursery) -> None:
        """Start a task for ``url``, unless there was one."""
        if url not in self.log.seen:
            self.log.seen.add(url)
            nursery.start_soon(self.visit, url, nursery)

    async def visit(self, url: httpx.URL, nursery: trio.Nursery) -> None:
        """Read one page, and start a task for each that it links to."""
        html = await self.fetch(url)
        if html is not None:
            page = Page(html)
            self.log.titles[url] = page.title
            for link in map(url.join, page.links):
                if link.netloc == url.netloc:
                    self.find(link, nursery)
        self.show.crawling(self.log)

    async def fetch(self, url: httpx.URL) -> str | None:
        """Return the page, which may take several attempts; nothing if all of them fail."""
        for attempt in range(ATTEMPTS):
            self.log.requests += 1
            try:
                response = await self.client.get(url)
            except httpx.TransportError as error:
                self.log.failures += 1
                self.show.say(f"{url.path}, attempt {attempt + 1}: {str(error) or type(error).__name__}")
            else:
                return response.text
        self.log.given_up.add(url)
        return None


# -- what the reader sees -----------------------------------------------------------------------------------------


class Display:
    """Plain lines, one a second at most: for a log or a pipe."""

    def __init__(self) -> None:
        self.next_line = 0.0

    def crawling(self, log: Log) -> None:
        """Show how far the crawler is; how many pages there are is not known before the end."""
        if log.done == len(log.seen) or trio.current_time() >= self.next_line:
            self.next_line = trio.current_time() + 1.0
            self.say(f"{log.done:,} of {len(log.seen):,} known pages read")

    def say(self, text: str) -> None:
        """Tell of one event."""
        print(text[:80], flush=True)


class LiveDisplay(Display):
    """A bar on a terminal, redrawn in place."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress
        self.task = progress.add_task("pages", total=None)

    def crawling(self, log: Log) -> None:
        """Move the bar."""
        self.progress.update(self.task, completed=log.done, total=len(log.seen))
        if log.done == len(log.seen) or trio.current_time() >= self.next_line:
            self.next_line = trio.current_time() + 0.05
            self.progress.refresh()

    def say(self, text: str) -> None:
        """Tell of one event, above the bar."""
        self.progress.console.print(text, highlight=False, markup=False)


def display() -> tuple[AbstractContextManager[object], Display]:
    """What suits standard output."""
    if not sys.stdout.isatty():
        return nullcontext(), Display()
    # Redrawn by this thread: the one that rich would start knows nothing of trio.
    progress = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), auto_refresh=False)
    return progress, LiveDisplay(progress)


# -- the books ----------------------------------------------------------------------------------------------------


def books(stats: PoolStats, log: Log) -> dict[str, str]:
    """The figures that the transport kept of the one origin."""
    return {
        "pages read": f"{len(log.titles):,}",
        "requests": f"{stats.started:,}",
        "  sent at once": f"{stats.direct:,}",
        "  sent after a wait": f"{stats.waited:,}",
        "  failed": f"{log.failures}",
        "longest wait": f"{stats.longest_wait:.3f} s",
        "connections opened": f"{stats.opened}",
        "  broken, replaced": f"{stats.lost}",
    }


def checks(stats: PoolStats, log: Log, site: Site) -> dict[str, bool]:
    """What must be true at the end."""
    right = all(title == f"page {site.number(url.path)}" for url, title in log.titles.items())
    return {
        f"all of the {site.pages:,} pages were read": len(log.titles) == site.pages,
        "each answer is the page that was asked for": right,
        f"each lease is one request of the crawler's: {stats.direct + stats.waited:,}": (
            stats.started == stats.direct + stats.waited == log.requests
        ),
        f"only the page that breaks off did so: {log.failures} times": log.failures == FAILURES,
        f"each time cost a connection, and nothing else did: {stats.lost}": stats.lost == FAILURES,
        f"the site saw no more connections than were opened: {len(site.visitors)}": (
            0 < len(site.visitors) <= stats.opened
        ),
        "no response holds a connection any more": stats.leases == 0 and stats.balanced,
    }


def report(stats: PoolStats, log: Log, site: Site) -> int:
    """Print the books and what must hold, and return the exit code."""
    print("\nthe books")
    for label, value in books(stats, log).items():
        print(f"  {label:<24}{value}")
    print("\nwhat must hold")
    results = checks(stats, log, site)
    for statement, holds in results.items():
        print(f"  {'yes' if holds else 'NO '}  {statement}")
    return 0 if all(results.values()) else 1


# -- putting it together ------------------------------------------------------------------------------------------


async def crawl(url: str, options: argparse.Namespace, show: Display) -> tuple[PoolStats, Log]:
    """Crawl what is at ``url``; return the transport's books and the crawler's."""
    most = options.connections
    transport = PooledTransport(limits=httpx.Limits(max_connections=most, max_keepalive_connections=most))
    # Thousands of tasks wait for ten connections, and rightly so: that wait has no time-out here.
    timeout = httpx.Timeout(10.0, pool=None)
    async with httpx.AsyncClient(transport=transport, timeout=timeout) as client:
        crawler = Crawler(client, show)
        await crawler.crawl(httpx.URL(url))
        (stats,) = transport.stats.values()
    return stats, crawler.log


async def run(site: Site, options: argparse.Namespace, show: Display) -> tuple[PoolStats, Log] | None:
    """Crawl the site while it is being served."""
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    done = trio.Event()
    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(partial(serve, site, config, shutdown_trigger=done.wait))
        result = await crawl_unless_interrupted(f"{url}/pages/0", options, show)
        done.set()
    return result


async def crawl_unless_interrupted(
    url: str, options: argparse.Namespace, show: Display
) -> tuple[PoolStats, Log] | None:
    """Crawl until the end or until Ctrl-C, which cancels: everything is closed in order then too."""
    finished = None
    async with trio.open_nursery() as nursery:
        await nursery.start(cancel_on_interrupt, nursery.cancel_scope, show)
        finished = await crawl(url, options, show)
        nursery.cancel_scope.cancel()
    return finished


async def cancel_on_interrupt(
    scope: trio.CancelScope, show: Display, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Wait for Ctrl-C."""
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        task_status.started()
        await anext(signals)
        show.say("interrupted")
        scope.cancel()


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pages", type=int, default=2000, help="how many pages the site has (2,000)")
    parser.add_argument("--delay", type=float, default=0.005, help="seconds that it takes to answer (0.005)")
    parser.add_argument("--connections", type=int, default=10, help="how many the crawler may use (10)")
    options = parser.parse_args()
    if options.pages <= FLAKY:
        parser.error(f"--pages must be greater than {FLAKY}, the number of the page that breaks off")
    return options


def main() -> int:
    """Crawl and return the exit code."""
    options = parse()
    screen, show = display()
    site = Site(options.pages, options.delay)
    with screen:
        finished = trio.run(run, site, options, show)
    return INTERRUPTED if finished is None else report(*finished, site)


if __name__ == "__main__":
    sys.exit(main())
