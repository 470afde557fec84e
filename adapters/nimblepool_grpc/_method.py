"""One method of a service, as a channel reaches it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, final

from ._types import Q, R

if TYPE_CHECKING:
    from ._route import Route
    from ._types import Deserialize, Serialize


@final
class Method(Generic[Q, R]):
    """What all calls of one method have in common, made ready once.

    Args:
        name: ``/package.Service/Method``.
        route: where a call gets a channel.
        serialize: makes bytes of a request; ``None`` if it is bytes already.
        deserialize: makes a response of bytes; ``None`` if it is to stay bytes.
    """

    __slots__ = ("deserialize", "name", "route", "serialize")

    def __init__(
        self, name: str | bytes, route: Route, serialize: Serialize[Q] | None, deserialize: Deserialize[R] | None
    ) -> None:
        self.name = name.encode() if isinstance(name, str) else name
        self.route = route
        self.serialize: Serialize[Q] = serialize or _same
        self.deserialize: Deserialize[R] = deserialize or _same

    def renamed(self, name: str | bytes) -> Method[Q, R]:
        """Return this method under the name that an interceptor has chosen."""
        if name == self.name:
            return self
        return Method(name, self.route, self.serialize, self.deserialize)


def _same(message: Any) -> Any:  # noqa: ANN401 - bytes, which need no changing
    return message
