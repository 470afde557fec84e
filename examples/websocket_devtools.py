"""Ten pages in a headless Chromium, driven over one shared DevTools socket. Needs Chromium or Chrome."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import trio

from nimblepool_websocket import JSONRPC, WebSockets, WebSocketWorker, open_websockets

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# In a container /dev/shm is often too small for Chromium, which then loses pages: shared memory in /tmp will do.
OPTIONS = (
    "--headless", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--no-first-run", "--remote-debugging-port=0",
)  # fmt: skip
PAGES = 10
LARGEST_MESSAGE = 64 * 1024 * 1024
PATIENCE = 30.0
Data = str | bytes


class Page:
    """One tab: its session's messages, among those of all others on the same socket."""

    def __init__(self, sockets: WebSockets, rpc: JSONRPC, session: str) -> None:
        self._sockets = sockets
        self._rpc = rpc
        self._session = session

    async def call(self, method: str, **params: Any) -> Any:  # noqa: ANN401 - whatever DevTools return
        """Call a method of the page's session."""
        message = self._rpc.call(method, params, sessionId=self._session)
        return self._rpc.result(await self._sockets.request(message))

    async def go(self, url: str) -> None:
        """Load ``url``, and return when it is loaded."""
        await self.call("Page.enable")
        await self.call("Page.setLifecycleEventsEnabled", enabled=True)
        async with self._sockets.subscribe(self._is_load) as events:
            # The blank page that was there before may be loaded just now: it has another loader.
            loader = (await self.call("Page.navigate", url=url))["loaderId"]
            async for message in events:
                if json.loads(message)["params"]["loaderId"] == loader:
                    return

    def _is_load(self, message: Data) -> bool:
        event = json.loads(message)
        ours = event.get("sessionId") == self._session and event["method"] == "Page.lifecycleEvent"
        return bool(ours and event["params"]["name"] == "load")


async def visit(sockets: WebSockets, rpc: JSONRPC, number: int) -> None:
    """Open a page, wait until it is loaded, and ask it something."""

    async def call(method: str, **params: Any) -> Any:  # noqa: ANN401 - whatever DevTools return
        return rpc.result(await sockets.request(rpc.call(method, params)))

    target = (await call("Target.createTarget", url="about:blank"))["targetId"]
    session = (await call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
    page = Page(sockets, rpc, session)
    await page.go("data:text/html," + quote(f"<title>page {number}</title>"))
    answer = await page.call("Runtime.evaluate", expression=f"document.title + ', ' + {number} ** 2")
    print(answer["result"]["value"])
    await call("Target.closeTarget", targetId=target)


async def drive(uri: str) -> None:
    """Visit all pages at the same time."""
    rpc = JSONRPC(version=None)
    worker = WebSocketWorker(uri, proxy=None, max_size=LARGEST_MESSAGE, compression=None)
    async with open_websockets(worker, correlate=rpc) as sockets:
        async with trio.open_nursery() as nursery:
            for number in range(PAGES):
                nursery.start_soon(visit, sockets, rpc, number)
        print(f"{PAGES} pages over {sockets.shared_pool.stats.opened} socket")


def without_sandbox() -> list[str]:
    """Return the option without which Chromium does not run as root."""
    if os.geteuid() != 0:
        return []
    print("as root Chromium runs without its sandbox (--no-sandbox): show it only pages that you trust")
    return ["--no-sandbox"]


@asynccontextmanager
async def running(command: list[str], errors: Path) -> AsyncIterator[trio.Process]:
    """Run the browser for as long as the block, and write what it complains about into a file."""
    with errors.open("wb") as stderr:
        process = await trio.lowlevel.open_process(command, stdout=subprocess.DEVNULL, stderr=stderr)
    try:
        yield process
    finally:
        process.terminate()
        with trio.move_on_after(5, shield=True):
            await process.wait()
        process.kill()


async def address_of(process: trio.Process, profile: Path, errors: Path) -> str:
    """Return the URI of the browser's socket, once the browser has written it down."""
    written = trio.Path(profile / "DevToolsActivePort")
    with trio.move_on_after(PATIENCE):
        while process.poll() is None:
            if await written.exists() and "\n" in (text := await written.read_text()):
                port, path = text.splitlines()
                return f"ws://127.0.0.1:{port}{path}"
            await trio.sleep(0.05)
    sys.exit(f"the browser does not start; it says:\n{await trio.Path(errors).read_text(errors='replace')}")


async def main() -> None:
    """Start a browser, drive it, and end it."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"this example needs one of {', '.join(BROWSERS)}")
    with tempfile.TemporaryDirectory(prefix="devtools-", ignore_cleanup_errors=True) as directory:
        profile, errors = Path(directory), Path(directory, "errors")
        # Further options of the browser's may follow the name of this program.
        command = [browser, *OPTIONS, *without_sandbox(), *sys.argv[1:], f"--user-data-dir={profile}", "about:blank"]
        async with running(command, errors) as process:
            await drive(await address_of(process, profile, errors))


if __name__ == "__main__":
    trio.run(main)
