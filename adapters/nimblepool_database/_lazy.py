"""Names that are imported when they are first used: their drivers are optional."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGE = __name__.rpartition(".")[0]
WHERE: Mapping[str, str] = {
    "PostgresCommitUnknown": "._postgres._errors",
    "PostgresResource": "._postgres._resource",
    "PostgresTransactionLost": "._postgres._errors",
    "PostgresWorker": "._postgres._worker",
    "TrioConnection": "._postgres._trio_connection",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class
    if name not in WHERE:
        raise AttributeError(f"module {PACKAGE!r} has no attribute {name!r}")
    return find(name)


def find(name: str) -> Any:  # noqa: ANN401 - a class
    """Import one of the names, and put it into the package.

    Raises:
        ImportError: its driver is not installed; the text says how to install it.
    """
    try:
        module = import_module(WHERE[name], PACKAGE)
    except ImportError as error:
        if (error.name or "").split(".")[0] == PACKAGE:
            raise
        raise ImportError(
            f"{name} needs psycopg 3 with libpq: pip install 'nimblepool[postgres]' ({error})", name=error.name
        ) from error
    found = getattr(module, name)
    setattr(sys.modules[PACKAGE], name, found)
    return found


def __dir__() -> list[str]:
    return sorted({*vars(sys.modules[PACKAGE]), *WHERE})
