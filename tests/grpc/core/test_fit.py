import subprocess
import sys
from types import ModuleType

import grpc
import pytest

from nimblepool_grpc._core import _fit

cygrpc = _fit.load()


def copy_of(module: ModuleType) -> ModuleType:
    copy = ModuleType("copy")
    copy.__dict__.update({name: getattr(module, name) for name in dir(module)})
    return copy


def test_the_installed_grpcio_lacks_nothing() -> None:
    assert _fit.lacks(cygrpc) == []


@pytest.mark.parametrize("name", ["AioChannel", "execute_batch", "SendMessageOperation", "init_grpc_aio"])
def test_what_is_missing_is_named(name: str) -> None:
    module = copy_of(cygrpc)
    delattr(module, name)
    assert any(missing.startswith(name) for missing in _fit.lacks(module))


def test_a_method_that_is_missing_is_named() -> None:
    module = copy_of(cygrpc)
    module.__dict__["ReceiveMessageOperation"] = type("Operation", (), {})
    assert _fit.lacks(module) == ["ReceiveMessageOperation.message"]


def test_another_shape_is_told() -> None:
    module = copy_of(cygrpc)
    module.__dict__["execute_batch"] = lambda call: None
    (missing,) = _fit.lacks(module)
    assert missing.startswith("usable execute_batch")


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("SendMessageOperation", {"__init__": lambda self: None}),
        ("ReceiveMessageOperation", {"__init__": lambda self, flags, size: None, "message": None}),
        ("AioChannel.call", {"call": lambda self, method, deadline, credentials, wait_for_ready, more: None}),
        ("AioChannel.watch_connectivity_state", {"watch_connectivity_state": lambda self, last: None}),
    ],
)
def test_what_takes_other_arguments_is_named(name: str, members: dict[str, object]) -> None:
    module = copy_of(cygrpc)
    class_name = name.partition(".")[0]
    kept = {key: value for key, value in vars(getattr(cygrpc, class_name)).items() if not key.startswith("__")}
    module.__dict__[class_name] = type(class_name, (), kept | members)
    assert f"usable {name}" in _fit.lacks(module)


def test_credentials_of_another_make_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc, "local_channel_credentials", object)
    assert _fit.lacks(cygrpc) == ["ChannelCredentials._credentials"]


def test_the_error_names_the_release_and_the_tested_range(monkeypatch: pytest.MonkeyPatch) -> None:
    module = copy_of(cygrpc)
    delattr(module, "execute_batch")
    monkeypatch.setattr(_fit, "import_module", lambda name: module)
    with pytest.raises(ImportError, match=r"grpcio \d+\.\d+.* has no execute_batch; tested are 1\.56 to 1\.85"):
        _fit.load()


def test_a_missing_grpcio_says_how_to_get_it() -> None:
    code = "import sys; sys.modules['grpc'] = None; import nimblepool_grpc"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: this needs grpcio: pip install 'nimblepool[grpc]'" in done.stderr
