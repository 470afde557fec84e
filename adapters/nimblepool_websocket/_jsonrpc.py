"""JSON-RPC 2.0, and what looks like it."""

from __future__ import annotations

import json
from itertools import count
from typing import TYPE_CHECKING, Any, Final, cast, final

from ._errors import JSONRPCError

if TYPE_CHECKING:
    from collections.abc import Hashable

    from websockets.typing import Data

OWN: Final = ("id", "jsonrpc")
"""What a request says by itself."""


class _Text(str):
    """A request of our own making, which need not be read again to find its id."""

    __slots__ = ("id",)
    id: int


@final
class JSONRPC:
    """Builds JSON-RPC requests, finds the replies to them, and takes results out of those.

    ```python
    rpc = JSONRPC()
    async with open_websockets("ws://localhost:8000", correlate=rpc) as sockets:
        total = rpc.result(await sockets.request(rpc.call("add", [1, 2])))
    ```

    Requests of other making may be sent as well, batches included; their ids must not be in use already. A message with
    a ``method`` is never a reply: notifications and the server's own requests go to the subscribers.

    Args:
        version: what the member ``jsonrpc`` says; ``None`` leaves it out, as Chromium's DevTools want it.
    """

    def __init__(self, *, version: str | None = "2.0") -> None:
        self._version = {} if version is None else {"jsonrpc": version}
        self._ids = count(1)

    def call(self, method: str, params: object = None, **members: object) -> str:
        """Return a request with an id of its own.

        Args:
            method: its name.
            params: a list or a dictionary; ``None`` for none.
            members: further members of the request (``sessionId`` of DevTools).

        Raises:
            TypeError: ``members`` has an ``id`` or ``jsonrpc``, which are not the caller's to choose here.
        """
        number = next(self._ids)
        text = _Text(self._text({"id": number, "method": method}, params, members))
        text.id = number
        return text

    def notification(self, method: str, params: object = None, **members: object) -> str:
        """Return a request without an id, which gets no reply: for `send`.

        Raises:
            TypeError: as `call`.
        """
        return self._text({"method": method}, params, members)

    def result(self, reply: Data) -> Any:  # noqa: ANN401 - whatever the server returns
        """Return the result in ``reply``.

        Raises:
            JSONRPCError: the reply is an error.
            ValueError: it is no reply to a single request.
        """
        content: Any = json.loads(reply)
        if isinstance(content, dict):
            members = cast("dict[str, Any]", content)
            if members.get("error") is not None:
                raise _error_from(members["error"])
            if "result" in members:
                return members["result"]
        raise ValueError("a JSON-RPC reply must be an object with a result or an error")

    def request_id(self, message: Data) -> Hashable | None:
        """Return the id of a request, or the set of those of a batch.

        Raises:
            ValueError: the message is not JSON.
        """
        return message.id if isinstance(message, _Text) else _ids(json.loads(message), requests=True)

    def reply_id(self, message: Data) -> Hashable | None:
        """Return the id of a reply, or the set of those of a batch; ``None`` for anything else."""
        try:
            return _ids(json.loads(message), requests=False)
        except ValueError:
            return None

    def _text(self, head: dict[str, object], params: object, members: dict[str, object]) -> str:
        for name in OWN:
            if name in members:
                raise TypeError(
                    f"{name!r} is not yours to choose here; a request of your own making can be sent as text"
                )
        given = {} if params is None else {"params": params}
        return json.dumps({**self._version, **head, **given, **members}, separators=(",", ":"))


def _ids(content: Any, *, requests: bool) -> Hashable | None:  # noqa: ANN401 - whatever the JSON held
    if isinstance(content, list):
        found = [_ids(each, requests=requests) for each in cast("Any", content)]
        return frozenset(each for each in found if each is not None) or None
    if not isinstance(content, dict) or ("method" in content) is not requests:
        return None
    number = cast("dict[str, Any]", content).get("id")
    # To Python, true is 1: it would answer the first request.
    return number if isinstance(number, str | int | float) and not isinstance(number, bool) else None


def _error_from(error: Any) -> JSONRPCError:  # noqa: ANN401 - whatever the server put there
    if not isinstance(error, dict):
        return JSONRPCError(0, str(error))
    members = cast("dict[str, Any]", error)
    code = members.get("code", 0)
    return JSONRPCError(code if isinstance(code, int) else 0, str(members.get("message", "")), members.get("data"))
