"""The public surface is a decision: it changes here first, in a literal list."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nimblepool

ROOT = Path(__file__).parents[2]
CORE = ROOT / "nimblepool"
ADAPTERS = sorted(path.parent for path in (ROOT / "adapters").glob("nimblepool_*/__init__.py"))
PUBLIC_MODULES = {"__init__", "testing"}

SURFACE = {
    "nimblepool": [
        "Backoff",
        "BreakerState",
        "CheckoutTimeout",
        "CircuitBreaker",
        "CoDel",
        "DEFAULT",
        "Default",
        "Fatal",
        "KeyedCheckout",
        "KeyedPool",
        "KeyedStats",
        "Lease",
        "LeaseExpired",
        "LeaseRevoked",
        "LeaseTimeout",
        "NoneIdle",
        "Pool",
        "PoolClosed",
        "PoolError",
        "PoolObserver",
        "PoolOptions",
        "PoolOverloaded",
        "PoolStats",
        "PoolStatus",
        "PoolUnavailable",
        "PoolWorker",
        "PromptCheckout",
        "Reason",
        "ResourceLost",
        "Skip",
        "Stage",
        "Verdict",
        "open_keyed_pool",
        "open_pool",
        "serve_pool",
    ],
    "nimblepool_database": [
        "CommitUnknown",
        "Connection",
        "DBAPIWorker",
        "Database",
        "DatabaseResource",
        "DatabaseWorker",
        "Isolation",
        "Parameters",
        "Row",
        "SQLiteBusy",
        "SQLiteCommitUnknown",
        "SQLiteResource",
        "SQLiteTransactionLost",
        "SQLiteWorker",
        "TransactionLost",
        "Unsupported",
        "duckdb_worker",
        "psycopg_worker",
        "pymysql_worker",
        "sqlite3_worker",
    ],
    "nimblepool_grpc": [
        "ChannelFailed",
        "ChannelWorker",
        "LeasedChannel",
        "PooledChannel",
        "RpcCancelled",
        "RpcCheckoutTimeout",
        "RpcEnded",
        "RpcLeaseExpired",
        "RpcLeaseRevoked",
        "RpcOverloaded",
        "RpcPoolClosed",
        "RpcUnavailable",
        "StreamStreamCall",
        "StreamUnaryCall",
        "UnaryStreamCall",
        "UnaryUnaryCall",
    ],
    "nimblepool_http": [
        "OriginOptions",
        "PoolingOptions",
    ],
    "nimblepool_websocket": [
        "JSONRPC",
        "ConnectOptions",
        "Correlate",
        "Correlator",
        "JSONRPCError",
        "KeyedWebSockets",
        "LeasedSocket",
        "Overflow",
        "RequestLost",
        "RequestTimeout",
        "SendInterrupted",
        "SlowSubscriber",
        "Socket",
        "SocketClosed",
        "SocketClosedError",
        "SocketClosedOK",
        "Subscription",
        "WebSocketWorker",
        "WebSockets",
        "open_keyed_websockets",
        "open_websockets",
    ],
}

# Found by their packages' `__getattr__`, and not in `__all__`: each needs a driver that is optional.
LAZY = {
    "nimblepool_database": [
        "PostgresCommitUnknown",
        "PostgresResource",
        "PostgresTransactionLost",
        "PostgresWorker",
        "TrioConnection",
    ],
    "nimblepool_http": ["PooledTransport"],
}
DRIVERS = {"psycopg", "duckdb", "pymysql", "httpx", "httpx2"}


def imports(source: Path) -> Iterator[str]:
    """Every module that ``source`` imports from elsewhere, and every name it takes out of one, dotted."""
    for node in ast.walk(ast.parse(source.read_text(), str(source))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def sources(package: Path) -> list[Path]:
    return sorted(package.rglob("*.py"))


def test_the_surface_of_every_package_is_listed() -> None:
    assert set(SURFACE) == {path.name for path in [CORE, *ADAPTERS]}


@pytest.mark.parametrize(("package", "names"), SURFACE.items(), ids=list(SURFACE))
def test_the_exports_are_these(package: str, names: list[str]) -> None:
    assert sorted(importlib.import_module(package).__all__) == sorted(names)


@pytest.mark.parametrize(("package", "names"), LAZY.items(), ids=list(LAZY))
def test_a_name_that_needs_a_driver_is_found_when_it_is_used(package: str, names: list[str]) -> None:
    module = importlib.import_module(package)
    for name in names:
        assert getattr(module, name).__doc__
        assert name in dir(module)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = module.nonsense


@pytest.mark.parametrize("package", [path.name for path in ADAPTERS])
def test_importing_an_adapter_imports_no_optional_driver(package: str) -> None:
    script = f"import sys, {package}; print(sorted({DRIVERS!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_driver_says_how_to_get_it() -> None:
    script = (
        "import sys; sys.modules['psycopg'] = None\n"
        "import nimblepool_database\n"
        "for use in (lambda: nimblepool_database.PostgresWorker,\n"
        "            lambda: nimblepool_database.Database('postgresql://me:secret@host/db')):\n"
        "    try: use()\n"
        "    except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.count("pip install 'nimblepool[postgres]'") == 2
    assert "secret" not in done.stdout + done.stderr


ALIASES = {
    "BreakerState",
    "PoolStatus",
}  # their text stands below them in the source, where the language gives them none


@pytest.mark.parametrize("name", sorted(set(nimblepool.__all__) - ALIASES))
def test_every_export_exists_and_is_explained(name: str) -> None:
    assert getattr(nimblepool, name).__doc__


@pytest.mark.parametrize("package", [CORE, *ADAPTERS], ids=lambda path: path.name)
def test_a_package_only_re_exports(package: Path) -> None:
    body = ast.parse((package / "__init__.py").read_text()).body
    strange = [ast.unparse(node) for node in body if not _is_re_export(node)]
    assert strange == []


def _is_re_export(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assign):
        return [ast.unparse(target) for target in node.targets] in (["__all__"], ["__version__"])
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return all(isinstance(each, ast.ImportFrom) for each in node.body) and not node.orelse
    is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_docstring or isinstance(node, ast.ImportFrom)


def test_the_core_keeps_its_modules_private() -> None:
    entries = {path.relative_to(CORE).parts[0].removesuffix(".py") for path in sources(CORE)}
    assert {entry for entry in entries if not entry.startswith("_")} <= PUBLIC_MODULES


@pytest.mark.parametrize("source", sources(CORE), ids=lambda path: path.name)
def test_the_core_depends_on_trio_alone(source: Path) -> None:
    allowed = {*sys.stdlib_module_names, "trio", "nimblepool"}
    assert {name.split(".")[0] for name in imports(source)} <= allowed


def private_core_names(source: Path) -> list[str]:
    """What ``source`` imports from the core's private modules, or by a private name."""
    dotted = (name.split(".") for name in imports(source))
    return [
        ".".join(parts) for parts in dotted if parts[0] == "nimblepool" and any(p.startswith("_") for p in parts[1:])
    ]


@pytest.mark.parametrize(
    "source",
    [path for directory in [*ADAPTERS, ROOT / "examples"] for path in sources(directory)],
    ids=lambda path: path.name,
)
def test_adapters_and_examples_import_the_cores_public_names_only(source: Path) -> None:
    assert private_core_names(source) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from nimblepool import Pool", []),
        ("import nimblepool.testing", []),
        ("from ._local import thing", []),
        ("from nimblepool._pool import Pool", ["nimblepool._pool.Pool"]),
        ("import nimblepool._pool", ["nimblepool._pool"]),
        ("def f():\n    from nimblepool import _pool", ["nimblepool._pool"]),
    ],
)
def test_the_scan_finds_private_imports(tmp_path: Path, text: str, found: list[str]) -> None:
    source = tmp_path / "adapter.py"
    source.write_text(text)
    assert private_core_names(source) == found
