"""Ten pages in a headless Chromium, driven over one shared DevTools socket. Needs Chromium or Chrome."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import trio

from nimblepool_websocket import JSONRPC, WebSockets, WebSocketWorker, open_websockets

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
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

    def loaded(self, message: Data) -> bool:
        """Tell whether ``message`` says that this page is loaded."""
        event = json.loads(message)
        return bool(event.get("sessionId") == self._session and event["method"] == "Page.loadEventFired")


async def visit(sockets: WebSockets, rpc: JSONRPC, number: int) -> None:
    """Open a page, wait until it is loaded, and ask it something."""

    async def call(method: str, **params: Any) -> Any:  # noqa: ANN401 - whatever DevTools return
        return rpc.result(await sockets.request(rpc.call(method, params)))

    target = (await call("Target.createTarget", url="about:blank"))["targetId"]
    session = (await call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
    page = Page(sockets, rpc, session)
    async with sockets.subscribe(page.loaded) as events:
        await page.call("Page.enable")
        await page.call("Page.navigate", url="data:text/html," + quote(f"<title>page {number}</title>"))
        await anext(events)
    answer = await page.call("Runtime.evaluate", expression=f"document.title + ', ' + {number} ** 2")
    print(answer["result"]["value"])
    await call("Target.closeTarget", targetId=target)


async def address_of(profile: Path) -> str:
    """Return the URI of the browser's socket, once the browser has written it down."""
    written = trio.Path(profile / "DevToolsActivePort")
    with trio.fail_after(PATIENCE):
        while not await written.exists() or "\n" not in await written.read_text():  # noqa: ASYNC110 - another process
            await trio.sleep(0.05)
    port, path = (await written.read_text()).splitlines()
    return f"ws://127.0.0.1:{port}{path}"


async def drive(uri: str) -> None:
    """Visit all pages at the same time."""
    rpc = JSONRPC(version=None)
    worker = WebSocketWorker(uri, proxy=None, max_size=LARGEST_MESSAGE, compression=None)
    async with open_websockets(worker, correlate=rpc) as sockets:
        async with trio.open_nursery() as nursery:
            for number in range(PAGES):
                nursery.start_soon(visit, sockets, rpc, number)
        print(f"{PAGES} pages over {sockets.shared_pool.stats.opened} socket")


async def main() -> None:
    """Start a browser, drive it, and end it."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"this example needs one of {', '.join(BROWSERS)}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        options = ["--headless", "--disable-gpu", "--no-sandbox", "--no-first-run", "--remote-debugging-port=0"]
        command = [browser, *options, f"--user-data-dir={directory}", "about:blank"]
        async with trio.open_nursery() as nursery:
            process = await nursery.start(_start, command)
            await drive(await address_of(Path(directory)))
            process.terminate()


async def _start(command: list[str], task_status: trio.TaskStatus[trio.Process]) -> None:
    quiet = subprocess.DEVNULL
    await trio.run_process(command, stdout=quiet, stderr=quiet, check=False, task_status=task_status)


if __name__ == "__main__":
    trio.run(main)
