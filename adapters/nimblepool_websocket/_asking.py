"""Sending a message over whichever shared socket has room, and waiting for the reply."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, TypeAlias, cast, final

import trio

from nimblepool import LeaseRevoked

from ._call import LOST
from ._check import seconds
from ._errors import RequestTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from contextlib import AbstractAsyncContextManager

    from websockets.typing import Data, DataLike

    from nimblepool import Default, Lease

    from ._call import Call
    from ._correlate import Correlator
    from ._exchange import Exchange
    from ._shared_worker import SharedSocket

    Checkout: TypeAlias = Callable[[float], AbstractAsyncContextManager[Lease[SharedSocket]]]
    """Lends a shared socket within so many seconds."""

WATCHED: Final = nullcontext()


@final
class Asker:
    """Checks a message, and sends it through one pool or another."""

    def __init__(self, correlator: Correlator, request_timeout: float) -> None:
        self._correlator = correlator
        self._request_timeout = request_timeout

    async def request(
        self, checkout: Checkout, message: DataLike, *, timeout: float | Default | None, retry: bool, text: bool | None
    ) -> Data:
        """See `WebSockets.request`."""
        data, is_text = _encoded(message, text)
        key = self._correlator.request_id(message if isinstance(message, str) else data)
        if key is None:
            raise ValueError("correlate finds no id in this message, so that no reply can be matched to it: send() it")
        limit = seconds(timeout, self._request_timeout)
        reply = await _ask(checkout, key, data, is_text=is_text, limit=limit, retry=retry)
        assert reply is not None, "bug: a request without a reply has ended well"
        return reply

    async def send(
        self, checkout: Checkout, message: DataLike, *, timeout: float | Default | None, text: bool | None
    ) -> None:
        """See `WebSockets.send`."""
        data, is_text = _encoded(message, text)
        limit = seconds(timeout, self._request_timeout)
        await _ask(checkout, None, data, is_text=is_text, limit=limit, retry=True)


def _encoded(message: object, text: bool | None) -> tuple[bytes, bool]:
    """Return the bytes of ``message``, and whether they go as text.

    Done before the message is in anybody's hands: one that cannot be encoded would cost the driver's connection, and
    bytes that are no text the server's.

    Raises:
        TypeError: it is neither text nor bytes.
        UnicodeError: it is text that UTF-8 cannot hold, or bytes that are to go as text and are not UTF-8.
    """
    if isinstance(message, str):
        return message.encode(), text is not False
    if isinstance(message, bytes | bytearray | memoryview):
        data = bytes(cast("bytes", message))
        if text:
            data.decode()
        return data, bool(text)
    raise TypeError(f"a message must be str or bytes, not {type(message).__name__}")


async def _ask(
    checkout: Checkout, key: Hashable | None, data: bytes, *, is_text: bool, limit: float, retry: bool
) -> Data | None:
    """Send ``data``, and return the reply; ``None`` where none is expected, once it is sent.

    What was not sent when its socket was lost is sent on another.

    Raises:
        RequestLost: the socket was lost after it was sent, or without ``retry``; or the pool has closed.
        RequestTimeout: the reply did not come in time.
        nimblepool.PoolError: no socket could be had.
    """
    deadline = trio.current_time() + limit
    while True:
        exchange = call = None
        try:
            async with checkout(max(0.0, deadline - trio.current_time())) as lease:
                exchange = lease.resource.exchange
                call = exchange.submit(key, data, is_text=is_text)
                await _finish(exchange, call, deadline, limit)
        except LeaseRevoked as error:
            if exchange is None or call is None:
                raise
            raise exchange.lost(call) from error
        if call.state is not LOST:
            return call.reply
        if call.was_sent or not retry:
            raise exchange.lost(call)


async def _finish(exchange: Exchange, call: Call, deadline: float, limit: float) -> None:
    """Wait until the call is settled."""
    try:
        with WATCHED if exchange.watch(call, deadline) else trio.CancelScope(deadline=deadline):
            await call.done.wait()
        # Even when the time is up the reply may just have come.
        if not call.is_settled:
            raise RequestTimeout(_slow(call, limit), was_sent=call.was_sent)
    finally:
        exchange.forget(call)


def _slow(call: Call, limit: float) -> str:
    what = "it was sent, and the server may have acted on it" if call.was_sent else "it was not sent"
    if call.key is None:
        return f"the message could not be sent within {limit:g} s; {what}"
    return f"no reply within {limit:g} s to the request with the id {call.key!r}; {what}"
