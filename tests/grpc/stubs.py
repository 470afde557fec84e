"""What grpcio-tools makes of the `.proto` files beside this one: a real generated stub for the tests, and servicers."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeAlias

HERE = Path(__file__).parent
Generated: TypeAlias = Any
"""A message, a stub, or a call of one: made while the tests run, so that no checker can know its type."""


def generate(target: Path, *protos: Path) -> None:
    """Let protoc write the modules of ``protos`` into ``target``, which goes into the path of imports."""
    directories = {f"--proto_path={proto.parent}" for proto in protos}
    command = [sys.executable, "-m", "grpc_tools.protoc", *directories, f"--python_out={target}"]
    command += [f"--grpc_python_out={target}", *map(str, protos)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if str(target) not in sys.path:
        sys.path.append(str(target))


class Stubs:
    """The generated modules of one ``.proto``: messages and stubs by their names."""

    def __init__(self, name: str) -> None:
        self._messages = importlib.import_module(f"{name}_pb2")
        self._services = importlib.import_module(f"{name}_pb2_grpc")

    def __getattr__(self, name: str) -> Generated:
        return getattr(self._messages, name, None) or getattr(self._services, name)
