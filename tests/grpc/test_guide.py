import ast
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import trio
import trustme

import nimblepool
import nimblepool_grpc
from nimblepool_grpc import PooledChannel, RpcUnavailable
from nimblepool_grpc._options import DEFAULTS
from tests.grpc.peer import PATIENCE, until
from tests.grpc.stubs import Generated, Stubs, generate

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "grpc.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
ETCD = ROOT / "tests" / "servers" / "etcd.proto"
SERVER = Path(__file__).parent / "greeter.py"
TARGET = "localhost:50051"


def block(part: str) -> str:
    """Return the one code block that has ``part`` in it."""
    (code,) = (code for code in BLOCKS if part in code)
    return str(code)


CONFIGURED = block("loadBalancingConfig")


async def run(code: str, **names: object) -> dict[str, Any]:
    """Run a code block as if it stood in a coroutine, and return the names it made."""
    known: dict[str, Any] = {"grpc": grpc, "json": json, "trio": trio, "PooledChannel": PooledChannel, **names}
    coroutine: Awaitable[object] | None = eval(
        compile(code, "grpc.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True), known
    )
    if coroutine is not None:
        await coroutine
    return known


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the modules that grpcio-tools makes of the guide's service."""
    directory = tmp_path_factory.mktemp("guide")
    (proto,) = re.findall(r"^```proto\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    (directory / "greeter.proto").write_text(proto)
    generate(directory, directory / "greeter.proto")
    return directory


@contextmanager
def serving(*arguments: str | Path) -> Iterator[int]:
    """Run the guide's server, and give its port."""
    with subprocess.Popen(
        [sys.executable, SERVER, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


@pytest.fixture(scope="module")
def greeter(directory: Path) -> Stubs:
    assert directory.exists()
    return Stubs("greeter")


@pytest.fixture(scope="module")
def port(directory: Path) -> Iterator[int]:
    with serving(directory) as port:
        yield port


@pytest.fixture
async def names(port: int, greeter: Stubs) -> Any:  # noqa: ANN401 - a generator of names
    """What the guide's blocks take as given."""
    async with PooledChannel(f"127.0.0.1:{port}") as channel:
        yield {**plain(greeter), "channel": channel, "stub": greeter.GreeterStub(channel), "replies": {}, "heard": []}
        await until(lambda: not channel.stats.leases)


def plain(greeter: Stubs) -> dict[str, Any]:
    return {
        "HelloRequest": greeter.HelloRequest,
        "GreeterStub": greeter.GreeterStub,
        "RpcUnavailable": RpcUnavailable,
        "Path": Path,
    }


async def greeted(channel: PooledChannel, greeter: Stubs, name: str = "Ada", **terms: object) -> str:
    async with channel:
        reply: Generated = await greeter.GreeterStub(channel).SayHello(greeter.HelloRequest(name=name), **terms)
        return str(reply.text)


def test_every_code_block_is_run() -> None:
    parts = re.findall(r'block\("([^"]+)"\)', Path(__file__).read_text())
    assert sorted(block(part) for part in parts) == sorted(BLOCKS)


async def test_the_first_example_runs_as_it_stands(directory: Path, port: int) -> None:
    code = block("trio.run(main)").replace(TARGET, f"127.0.0.1:{port}")
    command = [sys.executable, "-W", "error", "-c", code]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(directory), *filter(None, sys.path)])}
    done = await trio.run_process(
        command, capture_stdout=True, capture_stderr=True, check=False, env=environment, cwd=directory
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"hello Ada")


async def test_a_call_for_each_task(names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    await run(block("three calls at a time"), **names)
    assert sorted(names["replies"]) == ["Ada", "Grace", "Mary"]
    assert capsys.readouterr().out.count("StatusCode.OK") == 3


async def test_both_kinds_of_deadline(names: dict[str, Any]) -> None:
    assert (await run(block("TooSlowError after"), **names))["reply"].text.startswith("hello Ada")


async def test_the_streams(names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    made = await run(block("any iterable will do"), **names)
    assert capsys.readouterr().out.split("\n") == ["0 Ada", "1 Ada", "2 Ada", "hello Ada", ""]
    assert made["reply"] is grpc.aio.EOF


async def test_a_stream_is_begun_again(names: dict[str, Any]) -> None:
    listen = (await run(block("async def listen"), **names))["listen"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, "Ada")
        await until(lambda: len(names["heard"]) >= 6)
        nursery.cancel_scope.cancel()
    assert names["heard"][:4] == ["0 Ada", "1 Ada", "2 Ada", "0 Ada"]


async def test_what_is_done_about_errors(names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    code = block("ask again, or elsewhere")
    await run(code.replace("Ada", "nobody"), **names)
    assert capsys.readouterr().out == "NOT_FOUND nobody is not known\n"
    async with PooledChannel("127.0.0.1:1") as channel:
        await run(code, **{**names, "stub": names["GreeterStub"](channel)})
    assert capsys.readouterr().out.startswith("not reached: failed to connect to all addresses")


async def test_the_options_of_a_channel_exist(port: int, greeter: Stubs) -> None:
    code = block("calls_per_channel=50").replace(TARGET, f"127.0.0.1:{port}")
    channel = (await run(code))["channel"]
    assert (await greeted(channel, greeter)).startswith("hello Ada")


async def test_a_lease_is_one_connection(names: dict[str, Any]) -> None:
    await run(block("channel.lease()"), **names)
    assert [reply.split()[1] for reply in names["replies"].values()] == ["Ada", "Grace"]
    assert len({reply.split()[2] for reply in names["replies"].values()}) == 1


async def test_keep_alive_can_be_quicker(port: int, greeter: Stubs) -> None:
    code = block("grpc.keepalive_time_ms").replace(TARGET, f"127.0.0.1:{port}")
    assert (await greeted((await run(code))["channel"], greeter)).startswith("hello Ada")


async def test_the_health_of_ones_own_service(names: dict[str, Any]) -> None:
    health = (await run(block("async def health"), **names))["health"]
    assert await health() == (503, "IDLE")
    with trio.fail_after(PATIENCE):
        await names["channel"].channel_ready()
    assert await health() == (200, "READY")


async def test_mutual_tls_and_a_token_for_every_call(
    directory: Path, greeter: Stubs, authority: trustme.CA, tmp_path: Path
) -> None:
    client = authority.issue_cert("client.example")
    server = authority.issue_cert("localhost")
    pems = {
        "ca.pem": authority.cert_pem,
        "client.key": client.private_key_pem,
        "client.pem": client.cert_chain_pems[0],
        "server.key": server.private_key_pem,
        "server.pem": server.cert_chain_pems[0],
    }
    for name, pem in pems.items():
        pem.write_to_path(str(tmp_path / name))
    with serving(directory, *(tmp_path / name for name in ("server.key", "server.pem", "ca.pem"))) as port:
        code = block("ssl_channel_credentials").replace(TARGET, f"localhost:{port}")
        made = await run(code, Path=lambda name: tmp_path / name, fresh_token=lambda: "fresh")
        assert "'authorization': 'Bearer fresh'" in await greeted(made["channel"], greeter)
        channel = PooledChannel(f"localhost:{port}", credentials=made["tls"])
        single = await greeted(channel, greeter, credentials=grpc.access_token_call_credentials("single"))
        assert "'authorization': 'Bearer single'" in single


async def test_interceptors_serve_every_kind_whose_class_they_inherit(port: int, greeter: Stubs) -> None:
    code = block("class Signed").replace(TARGET, f"127.0.0.1:{port}")
    async with (await run(code))["channel"] as channel:
        stub = greeter.GreeterStub(channel)
        assert "'signature': 'Ada'" in (await stub.SayHello(greeter.HelloRequest(name="you"))).text
        told = [reply.text async for reply in stub.Repeat(greeter.HelloRequest(name="you"))]
        assert told == ["0 you Ada", "1 you Ada", "2 you Ada"]


async def test_requests_are_compressed(port: int, greeter: Stubs, names: dict[str, Any]) -> None:
    made = await run(block("compression=").replace(TARGET, f"127.0.0.1:{port}"), **names)
    assert made["reply"].text.startswith("hello Ada")
    assert (await greeted(made["channel"], greeter)).startswith("hello Ada")


async def test_without_a_service_config_nothing_is_asked_again(names: dict[str, Any]) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="once only"):
        await names["stub"].SayHello(names["HelloRequest"](name="flaky"))


async def test_a_service_config_that_is_not_valid_is_told(port: int, greeter: Stubs) -> None:
    channel = PooledChannel(f"127.0.0.1:{port}", options=[("grpc.service_config", "{nonsense")])
    with pytest.raises(RpcUnavailable, match="Failed to create"):
        await greeted(channel, greeter)


async def test_a_service_config_retries_and_goes_round_robin(directory: Path, greeter: Stubs) -> None:
    with serving(directory) as one, serving(directory) as two:
        code = CONFIGURED.replace("50051", str(one)).replace("50052", str(two))
        async with (await run(code))["channel"] as channel:
            stub = greeter.GreeterStub(channel)
            assert (await stub.SayHello(greeter.HelloRequest(name="flaky"))).text.startswith("hello flaky")
            used: set[str] = set()
            with trio.fail_after(PATIENCE):
                while len(used) < 2:
                    used.add((await stub.SayHello(greeter.HelloRequest(name="Ada"))).text.split()[2])
            assert channel.stats.size == 1


async def test_a_channel_that_goes_round_robin_is_usable_while_one_server_is(directory: Path, greeter: Stubs) -> None:
    async with AsyncExitStack() as stack:
        one = stack.enter_context(serving(directory))
        with serving(directory) as two:
            code = CONFIGURED.replace("50051", str(one)).replace("50052", str(two))
            channel = await stack.enter_async_context((await run(code))["channel"])
            stub = greeter.GreeterStub(channel)
            await stub.SayHello(greeter.HelloRequest(name="Ada"))
        for _ in range(20):
            assert (await stub.SayHello(greeter.HelloRequest(name="Ada"))).text.startswith("hello Ada")
        assert (channel.stats.opened, channel.stats.lost) == (1, 0)


async def test_the_watch_of_etcd_names_what_exists(tmp_path: Path) -> None:
    generate(tmp_path, ETCD)
    code = block("from etcd_pb2")
    made = await run(code)
    asked = {
        node.func.id: {keyword.arg for keyword in node.keywords}
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("Request")
    }
    assert asked.keys() == {"WatchCreateRequest", "WatchRequest"}
    for name, fields in asked.items():
        assert fields <= set(made[name].DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize("row", re.findall(r"^\| (`Rpc.*?) \| `([A-Z_]+)` \|", GUIDE, re.MULTILINE), ids=str)
def test_the_table_of_errors_is_true(row: tuple[str, str]) -> None:
    errors = re.findall(r"`(Rpc\w+)`(?: \(`(\w+)`\))?", row[0])
    assert errors
    for name, pools in errors:
        error = getattr(nimblepool_grpc, name)("why")
        assert isinstance(error, grpc.aio.AioRpcError)
        assert error.code().name == row[1]
        assert not pools or isinstance(error, getattr(nimblepool, pools))


def test_every_error_stands_in_the_table() -> None:
    errors = [name for name in nimblepool_grpc.__all__ if name.startswith("Rpc")]
    assert [name for name in errors if f"| `{name}`" not in GUIDE and f", `{name}`" not in GUIDE] == []


def test_the_defaults_are_those_that_are_named() -> None:
    defaults = {name: parameter.default for name, parameter in inspect.signature(PooledChannel).parameters.items()}
    assert f"up to `channels` ({defaults['channels']})" in GUIDE
    assert f"fewer than `calls_per_channel` ({defaults['calls_per_channel']})" in GUIDE
    assert f"every {DEFAULTS['grpc.keepalive_time_ms'] // 1000} seconds" in GUIDE


def test_the_guide_links_to_what_exists() -> None:
    headings = {re.sub(r"\W+", "-", title.lower()) for title in re.findall(r"^## (.+)$", GUIDE, re.MULTILINE)}
    assert [link for link in re.findall(r"\]\(#([^)]+)\)", GUIDE) if link not in headings] == []
    assert [link for link in re.findall(r"\]\((\.\./[^)]+)\)", GUIDE) if not (ROOT / "docs" / link).exists()] == []


@pytest.mark.parametrize("name", nimblepool_grpc.__all__)
def test_every_export_exists_and_is_explained(name: str) -> None:
    assert getattr(nimblepool_grpc, name).__doc__
