"""What there is to know about a driver."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, final

from nimblepool import Verdict
from nimblepool_database._resource import Isolation, check_isolation, unsupported

from ._errors import variant

if TYPE_CHECKING:
    from nimblepool import PoolError

Begin: TypeAlias = Callable[[Isolation | None, bool], Sequence[str]]
"""Returns the statements that open a transaction of an isolation level, read-only or not."""


@final
@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Driver:
    """The options of `DBAPIWorker`, which explains them; validated. Without a repr: its functions know the password."""

    connect: Callable[[], Any]
    cancel: Callable[[Any], object] | None
    sever: Callable[[Any], object] | None
    in_transaction: Callable[[Any], bool] | None
    autocommit: bool | Callable[[Any], object]
    begin: str | Begin | None
    rollback: Callable[[Any], object] | None
    savepoints: bool
    cursor: Callable[[Any], Any]
    stream_cursor: Callable[[Any], Any]
    stream_alone: bool
    settle: Callable[[Any], object] | None
    ping: str | Callable[[Any], object]
    judge: Callable[[Any, BaseException], Verdict]
    error: type[Exception] | None
    commit_timeout: float
    cancel_timeout: float
    name: str

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not callable(self.connect):
            raise TypeError(f"connect must be a function that makes a connection, not {type(self.connect).__name__}")
        for name in ("commit_timeout", "cancel_timeout"):
            if not 0 < getattr(self, name) <= math.inf:
                raise ValueError(f"{name} must be more than 0 seconds, not {getattr(self, name)!r}")

    @property
    def commits_by_itself(self) -> bool:
        """Whether connections are in autocommit mode."""
        return self.autocommit is not False

    def opening(self, isolation: Isolation | None, *, readonly: bool) -> Sequence[str]:
        """Return the statements that open a transaction.

        Raises:
            Unsupported: there is no such transaction.
            ValueError: there is no such isolation level anywhere.
        """
        check_isolation(isolation)
        if callable(self.begin):
            return self.begin(isolation, readonly)
        if isolation is not None or readonly:
            raise unsupported(
                "an isolation level or a read-only transaction, without a function for `begin`,", self.name
            )
        if self.begin is not None:
            return [self.begin]
        return ["BEGIN"] if self.commits_by_itself else []

    def complaint(self, ours: type[PoolError], text: str) -> PoolError:
        """Make an error of ours that is the driver's as well."""
        return variant(ours, self.error)(text)  # type: ignore[arg-type] # classes are hashable


def plain_cursor(connection: Any) -> Any:  # noqa: ANN401 - whatever the driver has
    """Make a cursor as PEP 249 has it."""
    return connection.cursor()


def judge_by_name(_: object, error: BaseException) -> Verdict:
    """Say what an error of an unknown driver means for its connection, by the names that PEP 249 gives.

    An ``OperationalError`` may be a lost connection, or a lock that timed out: it has to be looked at.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    if "InterfaceError" in names:
        return Verdict.REMOVE
    return Verdict.RESET if "OperationalError" in names else Verdict.OK


def switch_to_autocommit(connection: Any) -> None:  # noqa: ANN401 - whatever the driver has
    """Switch a connection to autocommit mode the way most drivers have it: an attribute, or a method.

    Raises:
        TypeError: the connection has neither.
    """
    if not hasattr(connection, "autocommit"):
        raise TypeError(
            f"{type(connection).__module__}.{type(connection).__name__} has no `autocommit`: pass a function that "
            "switches it on, autocommit=lambda connection: ..."
        )
    if callable(connection.autocommit):
        connection.autocommit(True)
    else:
        connection.autocommit = True
