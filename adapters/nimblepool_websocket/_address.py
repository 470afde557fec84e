"""URIs, and what of them may be shown."""

from __future__ import annotations

import re
from typing import Final, final

from websockets.exceptions import InvalidURI
from websockets.uri import parse_uri

PLAIN_NAME: Final = re.compile(r"[\w.-]{1,100}")
"""What a user's ``make_worker`` may take in place of a URI, and may be shown."""


@final
class Address:
    """A URI as the key of its pools, which puts its keys into errors and into the log.

    It equals its URI, and shows neither user, password nor query.
    """

    __slots__ = ("uri",)

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __eq__(self, other: object) -> bool:
        return self.uri == (other.uri if isinstance(other, Address) else other)

    def __hash__(self) -> int:
        return hash(self.uri)

    def __str__(self) -> str:
        try:
            return place_of(self.uri)
        except ValueError:
            return self.uri if PLAIN_NAME.fullmatch(self.uri) else "not a URI"

    def __repr__(self) -> str:
        return repr(str(self))


def place_of(uri: str) -> str:
    """Return the URI without what may be secret: user, password and query.

    Raises:
        TypeError: it is no text.
        ValueError: it is no URI of a WebSocket server; the text does not quote it.
    """
    if not isinstance(uri, str):  # pyright: ignore[reportUnnecessaryIsInstance] - users may be wrong
        raise TypeError(f"uri must be a str like ws://host:port/path, not {type(uri).__name__}")
    try:
        parsed = parse_uri(uri)
    except ValueError:
        # Its own text quotes what may be a password that has a slash.
        raise ValueError("uri must be like ws://host:port/path or wss://host/path: its host or port is wrong") from None
    except InvalidURI as error:
        raise ValueError(f"uri must be like ws://host:port/path or wss://host/path: {error.msg}") from None
    return f"{'wss' if parsed.secure else 'ws'}://{parsed.host}:{parsed.port}{parsed.path}"
