"""The public surface is a decision: it changes here first, in a literal list."""

import ast
import importlib
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
        "Database",
        "DatabaseResource",
        "DatabaseWorker",
        "Parameters",
        "Row",
        "SQLiteBusy",
        "SQLiteCommitUnknown",
        "SQLiteResource",
        "SQLiteTransactionLost",
        "SQLiteWorker",
        "TransactionLost",
    ],
}


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
