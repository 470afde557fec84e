import email
import json
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = ["http", "httpx2", "websocket", "grpc", "postgres"]
PACKAGES = [
    "nimblepool",
    *sorted(p.name for p in (ROOT / "adapters").glob("nimblepool_*") if (p / "__init__.py").exists()),
]

REPORT = """
import importlib, importlib.metadata, json, sys
modules = [importlib.import_module(name) for name in sys.argv[1:]]
print(json.dumps({
    "version": importlib.metadata.version("nimblepool"),
    "files": {module.__name__: module.__file__ for module in modules},
}))
"""


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run ``command`` and return what it printed."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_holds_every_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    roots = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert roots == set(PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert not [name for name in names if name.endswith(".pyc")]


def test_metadata_says_what_pyproject_says(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_string(archive.read(path).decode())
        assert any(name.endswith(".dist-info/licenses/LICENSE") for name in archive.namelist())
    assert metadata["Version"] == PROJECT["version"]
    assert metadata["License-Expression"] == "Apache-2.0"
    required = [text for text in metadata.get_all("Requires-Dist", []) if "extra ==" not in text]
    assert required == PROJECT["dependencies"]
    assert required[0].startswith("trio>=")
    assert len(required) == 1


def test_imports_from_anywhere_once_installed(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps", wheel)
    (site,) = home.glob("lib/python*/site-packages")
    # Lends trio to the new environment without a network; a path line does not read that directory's own .pth files.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    report = json.loads(run(python, "-W", "error", "-c", REPORT, *PACKAGES, cwd=elsewhere))
    assert report["version"] == PROJECT["version"]
    for package in PACKAGES:
        assert Path(report["files"][package]) == site / package / "__init__.py"


def test_an_editable_install_is_two_plain_paths(tmp_path: Path) -> None:
    run(sys.executable, "-c", "import sys, hatchling.build as b; b.build_editable(sys.argv[1])", tmp_path)
    (built,) = tmp_path.glob("*.whl")
    archive = zipfile.ZipFile(built)
    (pth,) = (name for name in archive.namelist() if name.endswith(".pth"))
    lines = archive.read(pth).decode().split("\n")
    assert [Path(line) for line in lines if line] == [ROOT, ROOT / "adapters"]


def test_all_means_every_adapter() -> None:
    assert PROJECT["optional-dependencies"]["all"] == [f"nimblepool[{','.join(EXTRAS)}]"]


def test_the_floors_that_are_tested_are_the_ones_declared() -> None:
    extras = PROJECT["optional-dependencies"]
    usual = [name for name in [*EXTRAS, "demo"] if name != "websocket"]
    declared = [*PROJECT["dependencies"], *(text for name in usual for text in extras[name])]
    declared += [text for text in extras["test"] if text.startswith("grpcio-tools")]
    assert _constraints("floors.txt") == _oldest(declared)
    assert _constraints("floors-websocket.txt") == _oldest(extras["websocket"])


def _oldest(declared: list[str]) -> list[str]:
    oldest: dict[str, str] = {}
    for text in declared:
        requirement = re.sub(r"\[.*\]", "", text)
        oldest.setdefault(requirement.split(">=")[0], requirement.replace(">=", "=="))
    return list(oldest.values())


def _constraints(name: str) -> list[str]:
    return [line for line in (ROOT / ".ci" / name).read_text().splitlines() if not line.startswith("#")]
