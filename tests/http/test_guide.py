"""What docs/http.md says can be run, and names only what exists."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import trio

from nimblepool_http import PooledTransport
from tests.http.figures import leases, total
from tests.http.servers.hanging import nobody_listens
from tests.http.servers.http1 import Request, Visitor, answering
from tests.http.servers.proxies import http_proxy

if TYPE_CHECKING:
    from collections.abc import Awaitable

    import pytest

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "http.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
SITE = "https://books.example"
PROXY = "proxy.example:3128"


def block(part: str) -> str:
    """Return the one code block that has ``part`` in it."""
    (code,) = (code for code in BLOCKS if part in code)
    return str(code)


async def run(code: str, **names: object) -> dict[str, Any]:
    """Run a code block as if it stood in a coroutine, and return the names it made."""
    known: dict[str, Any] = {"httpx": httpx, "trio": trio, "PooledTransport": PooledTransport, **names}
    coroutine: Awaitable[object] | None = eval(
        compile(code, "http.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True), known
    )
    if coroutine is not None:
        await coroutine
    return known


def test_every_code_block_is_run() -> None:
    tests = Path(__file__).read_text()
    parts = re.findall(r'block\("([^"]+)"\)', tests)
    assert sorted(block(part) for part in parts) == sorted(BLOCKS)


async def test_the_one_line_change_runs_as_it_stands() -> None:
    async with answering() as origin:
        code = block("# was: httpx.AsyncClient()").replace(SITE, origin.url)
        command = [sys.executable, "-W", "error", "-c", code]
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
        assert (done.returncode, done.stderr, done.stdout) == (0, b"", b"200 ok\n")


async def test_the_options_exist() -> None:
    async with answering() as origin:
        names = await run(block("retries=2"))
        async with names["client"] as client:
            assert (await client.get(origin.url)).text == "ok"
            assert total(names["transport"], "opened") == 1


def test_the_table_of_options_is_complete() -> None:
    from nimblepool_http._options import PoolingOptions  # noqa: PLC0415 - the guide describes each of them

    rows = re.findall(r"^\| `(\w+)` \|", GUIDE, re.MULTILINE)
    described = [name for name in rows if name not in {"max_connections", "max_keepalive_connections"}]
    assert set(PoolingOptions.__annotations__) <= set(described)


async def test_an_origin_is_mounted() -> None:
    proceed = trio.Event()

    async def late(visitor: Visitor, _request: Request) -> None:
        await proceed.wait()
        await visitor.answer()

    async with answering(late) as origin:
        names = await run(block("mounts={").replace(SITE, origin.url))
        async with names["client"] as client, trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(client.get, origin.url)
            await origin.server.until(lambda: len(origin.requests) == 2)
            proceed.set()
        assert origin.server.most_at_once == 2


async def test_a_proxy_is_asked() -> None:
    async with answering() as origin, http_proxy("user:secret") as proxy:
        names = await run(block("proxy=").replace(PROXY, proxy.address))
        async with names["client"] as client:
            assert (await client.get(origin.url)).text == "ok"
        assert len(proxy.requests) == 1


async def test_server_sent_events_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    async def events(visitor: Visitor, _request: Request) -> bool:
        await visitor.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\ndata: 2\n\n")
        return False

    transport = PooledTransport()
    async with answering(events) as origin, httpx.AsyncClient(transport=transport) as client:
        await run(block("/news").replace(SITE, origin.url), client=client)
        assert leases(transport) == 0
    assert capsys.readouterr().out.split() == ["data:", "1", "data:", "2"]


async def test_an_upgraded_connection_is_written_and_read(capsys: pytest.CaptureFixture[str]) -> None:
    async def echo(visitor: Visitor, request: Request) -> bool:
        assert request.headers["upgrade"] == "echo"
        await visitor.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        await visitor.send(bytes(await visitor.stream.receive_some(4096)))
        await visitor.until_gone()
        return False

    transport = PooledTransport()
    async with answering(echo) as origin, httpx.AsyncClient(transport=transport) as client:
        await run(block("/talk").replace(SITE, origin.url), client=client)
        assert leases(transport) == 0
    assert capsys.readouterr().out == "b'hello'\n"


async def test_errors_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    code = block("except httpx.PoolTimeout")
    limits = httpx.Limits(max_connections=1)
    async with (
        answering() as origin,
        httpx.AsyncClient(transport=PooledTransport(limits=limits), timeout=httpx.Timeout(5.0, pool=0.01)) as client,
    ):
        names = await run(code.replace(SITE, origin.url), client=client)
        assert names["response"].text == "ok"
        async with client.stream("GET", origin.url):
            await run(code.replace(SITE, origin.url), client=client)
        with nobody_listens() as url:
            await run(code.replace(SITE, url), client=client)
    busy, gone = capsys.readouterr().out.splitlines()
    assert busy == "too busy"
    assert gone.startswith("cannot be reached: ")


async def test_figures_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    async with answering() as origin:
        await run(block("transport.stats").replace(SITE, origin.url))
        expected = [f"http[{origin.url}] did not wait long", f"{origin.url} 1 open, 0 in use, 0 waiting"]
        assert capsys.readouterr().out.splitlines() == expected


async def test_httpx2_is_the_same() -> None:
    async with answering() as origin:
        names = await run(block("import httpx2"))
        async with names["client2"] as client:
            assert (await client.get(origin.url)).text == "ok"


async def test_works_without_a_block_and_again_in_the_next_run(tmp_path: Path) -> None:
    program = """
import gc, httpx, trio
from nimblepool_http import PooledTransport
transport = PooledTransport()
client = httpx.AsyncClient(transport=transport)
async def main():
    print((await client.get("URL")).text, [stats.size for stats in transport.stats.values()])
trio.run(main)
print(transport.stats)
trio.run(main)
gc.collect()
"""
    async with answering() as origin:
        command = [sys.executable, "-W", "error", "-c", program.replace("URL", origin.url)]
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.decode().splitlines() == ["ok [1]", "{}", "ok [1]"]
        await origin.server.until_empty()


async def test_a_proxy_of_the_client_goes_past_the_transport() -> None:
    transport = PooledTransport()
    async with (
        answering() as origin,
        http_proxy() as proxy,
        httpx.AsyncClient(transport=transport, proxy=proxy.url) as client,
    ):
        await client.get(origin.url)
        assert (len(proxy.requests), transport.stats) == (1, {})


def test_options_stand_in_httpx_s_order() -> None:
    theirs = list(inspect.signature(httpx.AsyncHTTPTransport).parameters)
    assert list(inspect.signature(PooledTransport).parameters)[: len(theirs)] == theirs


def test_every_path_and_every_part_it_links_to_exists() -> None:
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", GUIDE)
    parts = {f"#{title.lower().replace(' ', '-')}" for title in re.findall(r"^## (.+)$", GUIDE, re.MULTILINE)}
    missing = [link for link in links if link not in parts and not (ROOT / "docs" / link).exists()]
    assert links
    assert missing == []
