import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "database.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=lambda code: code.splitlines()[0])
def test_every_example_of_the_guide_can_be_compiled(code: str) -> None:
    compile(code, "database.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_guide_names_only_what_exists() -> None:
    import nimblepool  # noqa: PLC0415 - what is named there, and only that
    import nimblepool_database  # noqa: PLC0415

    imported = {
        alias.name: node.module
        for code in BLOCKS
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nimblepool")
        for alias in node.names
    }
    modules = {"nimblepool": nimblepool, "nimblepool_database": nimblepool_database}
    assert imported
    assert [name for name, module in imported.items() if not hasattr(modules[str(module)], name)] == []


def test_the_example_suite_passes(tmp_path: Path) -> None:
    command: list[str | Path] = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp"]
    command += [tmp_path / "suite", ROOT / "examples" / "test_sandbox_example.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout
