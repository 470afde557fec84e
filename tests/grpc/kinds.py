"""The four kinds of call, so that a test can hold for all of them."""

from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Literal

import pytest

from tests.grpc.stubs import Generated

Kind = Literal["Single", "Down", "Up", "Both"]
KINDS: Final[list[Kind]] = ["Single", "Down", "Up", "Both"]
STREAMS: Final[list[Kind]] = ["Down", "Up", "Both"]
every_kind: Final[Callable[..., Any]] = pytest.mark.parametrize("kind", KINDS)


async def each(*orders: object) -> AsyncIterator[object]:
    for order in orders:
        yield order


def begin(kind: Kind, stub: Generated, *orders: object, **options: object) -> Generated:
    """Return the call of this kind that brings the orders: its only one, or an iterator of them."""
    method = getattr(stub, kind)
    return method(*orders, **options) if kind in {"Single", "Down"} else method(each(*orders), **options)


async def finish(kind: Kind, call: Generated) -> Generated:
    """Return the reply to such a call, the last one of several."""
    return await call if kind in {"Single", "Up"} else [reply async for reply in call][-1]


async def ask(kind: Kind, stub: Generated, *orders: object, **options: object) -> Generated:
    """Call, and return the last reply."""
    return await finish(kind, begin(kind, stub, *orders, **options))
