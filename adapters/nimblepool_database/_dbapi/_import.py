"""Drivers that are imported only when somebody wants them."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def driver(module: str, package: str) -> Any:  # noqa: ANN401 - a module
    """Import a driver.

    Raises:
        ModuleNotFoundError: it is not installed; the text says how to.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ModuleNotFoundError(
            f"this needs the driver {module}, which is not installed: pip install {package}", name=module
        ) from None


def refuse(arguments: dict[str, Any], *names: str) -> None:
    """Refuse arguments of ``connect`` that the adapter sets itself.

    Raises:
        ValueError: naming those that were given.
    """
    given = [name for name in names if name in arguments]
    if given:
        raise ValueError(f"{', '.join(given)}: the adapter decides this itself; leave it out")
