import ast
import re
from pathlib import Path

import pytest

import nimblepool_websocket

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "websocket.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", BLOCKS, ids=lambda code: code.splitlines()[0])
def test_every_example_of_the_guide_can_be_compiled(code: str) -> None:
    compile(code, "websocket.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_guide_names_only_what_exists() -> None:
    imported = [
        alias.name
        for code in BLOCKS
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.ImportFrom) and node.module == "nimblepool_websocket"
        for alias in node.names
    ]
    assert imported
    assert [name for name in imported if not hasattr(nimblepool_websocket, name)] == []
    for link in re.findall(r"\]\((\.\./[^)]+)\)", GUIDE):
        assert (ROOT / "docs" / link).exists(), link


@pytest.mark.parametrize("name", nimblepool_websocket.__all__)
def test_every_export_exists_and_is_explained(name: str) -> None:
    exported = getattr(nimblepool_websocket, name)
    assert name in {"Correlate", "Overflow"} or exported.__doc__
