"""A headless Chromium as a peer: many sessions over one DevTools socket, and a browser that is killed."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

import pytest
import trio

from nimblepool import PoolUnavailable
from nimblepool.testing import check_balance
from nimblepool_websocket import (
    JSONRPC,
    KeyedWebSockets,
    RequestLost,
    RequestTimeout,
    Socket,
    WebSockets,
    WebSocketWorker,
    open_keyed_websockets,
    open_websockets,
)
from tests.servers.process import PATIENCE, account, give_to, program, until, wait_until
from tests.websocket.figures import tasks

pytestmark = pytest.mark.usefixtures("no_socket_is_left")

EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "websocket_devtools.py"
# Without a sandbox, which neither root nor every container can have: the tests show it nothing from outside.
OPTIONS: Final = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--no-first-run",
)  # fmt: skip
SESSIONS: Final = 8
LINES: Final = 50
LIMIT: Final = 1024 * 1024
"""Bytes in a message that a socket takes unless told otherwise."""
AT_ONCE: Final = 2.0
"""Seconds that are far below every timeout of the pool's and of the driver's."""
NEVER: Final = "new Promise(() => {})"


class Browser:
    """Chromium as a child process, under another URI each time that it is started."""

    def __init__(self) -> None:
        self.uri = ""
        self._program = program("chromium")
        self._directory = Path(tempfile.mkdtemp(prefix="nimblepool-chromium-"))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def start(self) -> None:
        """Start it with an empty profile, and return when it takes connections."""
        profile = Path(tempfile.mkdtemp(dir=self._directory))
        self._directory.chmod(0o755)
        give_to(account(), profile)
        command = [
            self._program, *OPTIONS, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip
        with (self._directory / "output").open("ab") as output:
            self._process = subprocess.Popen[bytes](
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                env={**os.environ, "HOME": str(profile)}, **account(),
            )  # fmt: skip
        self._read_address(profile / "DevToolsActivePort")

    def kill(self) -> None:
        """Kill it and all its processes (SIGKILL)."""
        process, self._process = self._process, None
        assert process is not None, "it is not running"
        os.killpg(process.pid, 9)
        process.wait(PATIENCE)

    def remove(self) -> None:
        """Kill it if it runs, and delete its files."""
        try:
            if self._process is not None:
                self.kill()
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _read_address(self, path: Path) -> None:
        assert self._process is not None
        wait_until(lambda: path.exists() and "\n" in path.read_text(), lambda: f"no start:\n{self._complaints()}")
        port, name = path.read_text().splitlines()
        self.uri = f"ws://127.0.0.1:{port}{name}"

    def _complaints(self) -> str:
        return (self._directory / "output").read_text(errors="replace")


class DevTools:
    """The calls of the tests, over a socket that they share."""

    def __init__(self, pools: WebSockets, rpc: JSONRPC) -> None:
        self.pools = pools
        self.rpc = rpc

    async def call(self, method: str, session: str | None = None, **params: Any) -> Any:  # noqa: ANN401
        more = {} if session is None else {"sessionId": session}
        return self.rpc.result(await self.pools.request(self.rpc.call(method, params, **more)))

    async def create(self) -> str:
        target: str = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        return target

    async def attach(self, target: str | None = None) -> str:
        target = target or await self.create()
        session: str = (await self.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        return session

    async def evaluate(self, session: str, expression: str) -> Any:  # noqa: ANN401
        answer = await self.call(
            "Runtime.evaluate", session, expression=expression, awaitPromise=True, returnByValue=True
        )
        return answer["result"].get("value")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture
def own_browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


def test_the_example_drives_ten_pages_over_one_socket(tmp_path: Path) -> None:
    command: list[str | Path] = [sys.executable, "-W", "error", EXAMPLE]
    # Where there is no account without rights the example says what it does without.
    more = ["--no-sandbox"] if os.geteuid() else []
    done = subprocess.run([*command, *more], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    pages = re.findall(r"^page (\d+), (\d+)$", done.stdout, re.MULTILINE)
    assert sorted(pages, key=lambda page: int(page[0])) == [(str(n), str(n**2)) for n in range(10)]
    assert done.stdout.endswith("\n10 pages over 1 socket\n")
    assert ("without its sandbox" in done.stdout) == (os.geteuid() == 0)


def test_the_example_says_why_the_browser_does_not_start(tmp_path: Path) -> None:
    browser = tmp_path / "chromium"
    browser.write_text("#!/bin/sh\necho 'No usable sandbox!' >&2\nexit 1\n")
    browser.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command: list[str | Path] = [sys.executable, "-W", "error", EXAMPLE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "the browser does not start; it says:\nNo usable sandbox!\n\n")


async def test_each_session_gets_its_own_answers_and_events_in_order(browser: Browser) -> None:
    rpc = JSONRPC(version=None)
    lines: dict[int, list[str]] = defaultdict(list)

    async def work(tools: DevTools, number: int) -> None:
        session = await tools.attach()
        await tools.call("Runtime.enable", session)
        async with tools.pools.subscribe(lambda message: is_line(message, session)) as events:
            for step in range(LINES):
                expression = f"console.log('{number}', {step}), {number} * 1000 + {step}"
                assert await tools.evaluate(session, expression) == number * 1000 + step
            while len(lines[number]) < LINES:
                said = json.loads(await anext(events))["params"]["args"]
                lines[number].append(f"{said[0]['value']} {said[1]['value']}")
            assert (events.dropped, events.losses) == (0, 0)

    async with open_websockets(browser.uri, correlate=rpc) as pools:
        async with trio.open_nursery() as nursery:
            for number in range(SESSIONS):
                nursery.start_soon(work, DevTools(pools, rpc), number)
        assert pools.shared_pool.stats.opened == 1
        check_balance(pools.shared_pool)
    assert lines == {number: [f"{number} {step}" for step in range(LINES)] for number in range(SESSIONS)}
    assert tasks() == set()


def is_line(message: str | bytes, session: str) -> bool:
    event = json.loads(message)
    return bool(event.get("sessionId") == session and event.get("method") == "Runtime.consoleAPICalled")


async def test_an_answer_that_nobody_waits_for_any_more_disturbs_no_other(browser: Browser) -> None:
    rpc = JSONRPC(version=None)
    late = "new Promise(done => setTimeout(() => done({n}), {wait}))"
    async with open_websockets(browser.uri, correlate=rpc) as pools:
        tools = DevTools(pools, rpc)
        session = await tools.attach()

        async def ask(n: int) -> None:
            if n % 5:
                with trio.move_on_after(0.01):
                    await tools.evaluate(session, late.format(n=n, wait=50 + n % 50))
            else:
                assert await tools.evaluate(session, late.format(n=n, wait=n % 50)) == n

        async with trio.open_nursery() as nursery:
            for n in range(500):
                nursery.start_soon(ask, n)
        with pytest.raises(RequestTimeout) as caught:
            await pools.request(evaluation(rpc, session, NEVER), timeout=0.05)
        assert caught.value.was_sent
        assert await tools.evaluate(session, "1 + 1") == 2
        assert (pools.shared_pool.stats.opened, pools.shared_pool.stats.leases) == (1, 0)


def evaluation(rpc: JSONRPC, session: str, expression: str) -> str:
    params = {"expression": expression, "awaitPromise": True}
    return rpc.call("Runtime.evaluate", params, sessionId=session)


async def test_an_answer_above_the_limit_costs_the_socket_and_the_next_one_is_prepared_anew(browser: Browser) -> None:
    rpc = JSONRPC(version=None)

    async def discover(connection: Socket) -> None:
        # Not a notification: DevTools refuse what has no id. The answer goes to the subscriber.
        await connection.send(rpc.call("Target.setDiscoverTargets", {"discover": True}))

    async with open_websockets(WebSocketWorker(browser.uri, on_open=discover), correlate=rpc) as pools:
        tools = DevTools(pools, rpc)
        async with pools.subscribe(buffer=1000) as events:
            session = await tools.attach()
            with pytest.raises(RequestLost) as caught:
                await tools.evaluate(session, f"'x'.repeat({LIMIT})")
            assert caught.value.was_sent
            assert "1009 (message too big)" in str(caught.value)
            target = await tools.create()
            with trio.fail_after(PATIENCE):
                while not is_creation(await anext(events), target):
                    pass
            assert events.losses == 1
        assert await tools.evaluate(await tools.attach(target), f"'x'.repeat({LIMIT} - 1000)") == "x" * (LIMIT - 1000)
        assert (pools.shared_pool.stats.opened, pools.shared_pool.stats.lost) == (2, 1)


def is_creation(message: str | bytes, target: str) -> bool:
    event = json.loads(message)
    created = event.get("method") == "Target.targetCreated"
    return bool(created and event["params"]["targetInfo"]["targetId"] == target)


async def test_a_killed_browser_fails_its_requests_at_once_and_another_one_is_found(own_browser: Browser) -> None:
    rpc = JSONRPC(version=None)
    lost: list[RequestLost] = []

    async def call(pools: KeyedWebSockets, uri: str, method: str, **params: Any) -> Any:  # noqa: ANN401
        return rpc.result(await pools.request(uri, rpc.call(method, params)))

    async def hang(pools: KeyedWebSockets, uri: str, session: str) -> None:
        with pytest.raises(RequestLost) as caught:
            await pools.request(uri, evaluation(rpc, session, NEVER))
        lost.append(caught.value)

    async with open_keyed_websockets(correlate=rpc) as pools:
        old = own_browser.uri
        target = (await call(pools, old, "Target.createTarget", url="about:blank"))["targetId"]
        session = (await call(pools, old, "Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(hang, pools, old, session)
            # The browser answers in order: it has all of them.
            await call(pools, old, "Browser.getVersion")
            await until(lambda: pools.shared_stats[old].leases == 20)
            await trio.to_thread.run_sync(own_browser.kill)
            nursery.cancel_scope.deadline = trio.current_time() + AT_ONCE
        assert [error.was_sent for error in lost] == [True] * 20
        with pytest.raises(PoolUnavailable) as caught:
            await call(pools, old, "Browser.getVersion")
        assert isinstance(caught.value.__cause__, OSError)
        await trio.to_thread.run_sync(own_browser.start)
        assert own_browser.uri != old
        assert "Chrome" in (await call(pools, own_browser.uri, "Browser.getVersion"))["product"]
    assert tasks() == set()


async def test_a_browser_that_is_told_to_close_answers_first(own_browser: Browser) -> None:
    rpc = JSONRPC(version=None)
    async with open_websockets(own_browser.uri, correlate=rpc, min_size=1) as pools:
        async with pools.connection() as ws:
            await ws.send(rpc.call("Browser.getVersion"))
            await ws.recv()
        assert await DevTools(pools, rpc).call("Browser.close") == {}
        # Both are at rest: nobody but the pools can notice.
        await until(lambda: (pools.stats.lost, pools.shared_pool.stats.lost) == (1, 1))
        with pytest.raises(PoolUnavailable):
            await pools.request(rpc.call("Browser.getVersion"))
