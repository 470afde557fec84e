"""Whether the installed grpcio has all that is used of it beside its public names."""

from __future__ import annotations

import inspect
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from operator import attrgetter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

__all__ = ["lacks", "load"]

_TESTED: Final = "1.56 to 1.85"
_CLASSES: Final = (
    "AioChannel",
    "ExecuteBatchError",
    "InitialMetadataFlags",
    "ReceiveInitialMetadataOperation",
    "ReceiveMessageOperation",
    "ReceiveStatusOnClientOperation",
    "SendCloseFromClientOperation",
    "SendInitialMetadataOperation",
    "SendMessageOperation",
)
_MEMBERS: Final = (
    "AioChannel.call",
    "AioChannel.check_connectivity_state",
    "AioChannel.close",
    "AioChannel.watch_connectivity_state",
    "InitialMetadataFlags.used_mask",
    "InitialMetadataFlags.wait_for_ready",
    "InitialMetadataFlags.wait_for_ready_explicitly_set",
    "ReceiveInitialMetadataOperation.initial_metadata",
    "ReceiveMessageOperation.message",
    "ReceiveStatusOnClientOperation.code",
    "ReceiveStatusOnClientOperation.details",
    "ReceiveStatusOnClientOperation.error_string",
    "ReceiveStatusOnClientOperation.trailing_metadata",
    "_AioCall.cancel",
    "execute_batch",
    "init_grpc_aio",
)
_OPERATIONS: Final[dict[str, tuple[object, ...]]] = {
    "ReceiveInitialMetadataOperation": (0,),
    "ReceiveMessageOperation": (0,),
    "ReceiveStatusOnClientOperation": (0,),
    "SendCloseFromClientOperation": (0,),
    "SendInitialMetadataOperation": ((), 0),
    "SendMessageOperation": (b"", 0),
}
"""How each is made."""
_CALLS: Final[dict[str, tuple[object, ...]]] = {
    "AioChannel.call": (None, b"", None, None, None),
    "AioChannel.check_connectivity_state": (None, False),
    "AioChannel.close": (None,),
    "AioChannel.watch_connectivity_state": (None, 0, None),
    "_AioCall.cancel": (None, ""),
    "execute_batch": (None, (), None),
}
"""How each is called, a method with its self."""


def load() -> ModuleType:
    """Return cygrpc.

    Raises:
        ImportError: there is no grpcio, or one that lacks something.
    """
    try:
        module = import_module("grpc._cython.cygrpc")
    except ImportError as error:
        raise ImportError(f"this needs grpcio: pip install 'nimblepool[grpc]' ({error})", name=error.name) from error
    if missing := lacks(module):
        raise ImportError(
            f"grpcio {_installed()} does not fit: it has no {', '.join(missing)}; tested are {_TESTED}", name="grpc"
        )
    return module


def lacks(module: ModuleType) -> list[str]:
    """Name what ``module`` does not have of what is used, or has in another shape."""
    missing = [name for name in _CLASSES if not isinstance(getattr(module, name, None), type)]
    missing += [name for name in _MEMBERS if not _has(module, name)]
    return missing or _misshapen(module)


def _has(module: object, name: str) -> bool:
    try:
        attrgetter(name)(module)
    except AttributeError:
        return False
    return True


def _misshapen(module: ModuleType) -> list[str]:
    wrong = [f"usable {name}" for name, arguments in _OPERATIONS.items() if not _makes(module, name, arguments)]
    wrong += [f"usable {name}" for name, arguments in _CALLS.items() if not _takes(attrgetter(name)(module), arguments)]
    if not hasattr(import_module("grpc").local_channel_credentials(), "_credentials"):
        wrong.append("ChannelCredentials._credentials")
    return wrong or _unusable_batch(module)


def _makes(module: ModuleType, name: str, arguments: tuple[object, ...]) -> bool:
    try:
        getattr(module, name)(*arguments)
    except Exception:  # noqa: BLE001
        return False
    return True


def _takes(function: Callable[..., object], arguments: tuple[object, ...]) -> bool:
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # it does not tell, in older releases
        return True
    return True


def _unusable_batch(module: ModuleType) -> list[str]:
    """Try out what can be tried without a channel, which would start the core's threads."""
    try:
        batch = module.execute_batch(None, (), None)
        batch.close()
    except Exception as error:  # noqa: BLE001
        return [f"usable execute_batch ({error})"]
    return [] if inspect.isawaitable(batch) else ["awaitable execute_batch"]


def _installed() -> str:
    try:
        return version("grpcio")
    except PackageNotFoundError:
        return "of an unknown version"
