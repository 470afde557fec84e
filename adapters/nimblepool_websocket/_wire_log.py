"""What the driver logs of the opening handshake, without what may be secret."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from websockets.typing import LoggerLike

    Adapter: TypeAlias = logging.LoggerAdapter[logging.Logger]
else:
    Adapter = logging.LoggerAdapter

REQUEST_LINE: Final = "> GET %s HTTP/1.1"
HEADERS: Final = ("> %s: %s", "< %s: %s")
HARMLESS: Final = frozenset(
    {
        "connection",
        "content-length",
        "content-type",
        "date",
        "host",
        "origin",
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-version",
        "server",
        "upgrade",
        "user-agent",
    }
)
"""Headers whose values may be read by anybody; a subprotocol is none, since some carry tokens there."""


def wire_log(given: LoggerLike | None) -> LoggerLike:
    """Return the logger for a connection: the user's as it is, the driver's made discreet."""
    return _Discreet(logging.getLogger("websockets.client"), {}) if given is None else given


@final
class _Discreet(Adapter):
    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:  # noqa: ANN401 - as it is declared
        super().log(level, msg, *_discreet(msg, args), **kwargs)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:  # noqa: ANN401
        # The driver's own adapter stands in front of this one, and has put the connection into `extra`.
        return msg, kwargs


def _discreet(msg: object, args: tuple[object, ...]) -> tuple[object, ...]:
    if msg == REQUEST_LINE:
        path, mark, _ = str(args[0]).partition("?")
        return (path + mark + ("..." if mark else ""),)
    if msg in HEADERS and str(args[0]).lower() not in HARMLESS:
        return (args[0], "...")
    return args
