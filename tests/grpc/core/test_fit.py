from types import ModuleType

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


def test_the_error_names_the_release_and_the_tested_range(monkeypatch: pytest.MonkeyPatch) -> None:
    module = copy_of(cygrpc)
    delattr(module, "execute_batch")
    monkeypatch.setattr(_fit, "import_module", lambda name: module)
    with pytest.raises(ImportError, match=r"grpcio \d+\.\d+.* has no execute_batch; tested are 1\.56 to 1\.85"):
        _fit.load()


def test_a_missing_grpcio_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ImportError(name=name)

    monkeypatch.setattr(_fit, "import_module", fail)
    with pytest.raises(ImportError, match=r"nimblepool\[grpc\]"):
        _fit.load()
