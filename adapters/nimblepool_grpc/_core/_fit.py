"""Whether the installed grpcio has all that is used of it beside its public names."""

from __future__ import annotations

import inspect
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from operator import attrgetter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
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
    """Try out what can be tried without a channel."""
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
