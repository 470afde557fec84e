"""The right to use a connection for a while, as the façade sees it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from ._resource import DatabaseResource


class Holding(Protocol):
    """A lease of the pool, or a share in one: who holds it may use the connection until it ends."""

    @property
    def resource(self) -> DatabaseResource:
        """The connection.

        Raises:
            nimblepool.LeaseExpired: the holding has ended.
        """
        ...


Checkout: TypeAlias = Callable[[], AbstractAsyncContextManager[Holding]]
"""Lends a connection to a block."""


class Routes(NamedTuple):
    """Where each kind of work gets its connection from."""

    general: Checkout
    """What may read and write."""
    writing: Checkout
    """What is going to write: where there is one writer, its connection."""
    reading: Checkout
    """What promised only to read: a replica, where there is one."""
