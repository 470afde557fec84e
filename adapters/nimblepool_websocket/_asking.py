"""Sending a message over whichever shared socket has room, and waiting for the reply."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import trio

from ._errors import RequestTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from contextlib import AbstractAsyncContextManager

    from websockets.typing import Data

    from nimblepool import Lease

    from ._call import Call
    from ._exchange import Exchange
    from ._shared_worker import SharedSocket

    Checkout: TypeAlias = Callable[[float], AbstractAsyncContextManager[Lease[SharedSocket]]]
    """Lends a shared socket within so many seconds."""

WATCHED: Final = nullcontext()


def encoded(message: object) -> tuple[bytes, bool]:
    """Return the bytes of ``message``, and whether they are text.

    Done before the message is in anybody's hands: one that cannot be encoded would cost the driver's connection.

    Raises:
        TypeError: it is neither text nor bytes.
        UnicodeEncodeError: it is text that UTF-8 cannot hold.
    """
    if isinstance(message, str):
        return message.encode(), True
    if isinstance(message, bytes | bytearray | memoryview):
        return bytes(cast("bytes", message)), False
    raise TypeError(f"a message must be str or bytes, not {type(message).__name__}")


async def ask(
    checkout: Checkout, key: Hashable | None, data: bytes, *, is_text: bool, seconds: float, retry: bool
) -> Data | None:
    """Send ``data``, and return the reply; ``None`` where none is expected, once it is sent.

    What was not sent when its socket was lost is sent on another.

    Raises:
        RequestLost: the socket was lost after it was sent, or without ``retry``.
        RequestTimeout: the reply did not come in time.
        nimblepool.PoolError: no socket could be had.
    """
    deadline = trio.current_time() + seconds
    while True:
        async with checkout(max(0.0, deadline - trio.current_time())) as lease:
            exchange = lease.resource.exchange
            call = exchange.submit(key, data, is_text=is_text)
            await _finish(exchange, call, deadline, seconds)
        if not call.is_lost:
            return call.reply
        if call.sent or not retry:
            raise exchange.lost(call)


async def _finish(exchange: Exchange, call: Call, deadline: float, seconds: float) -> None:
    """Wait until the call is done."""
    try:
        with WATCHED if exchange.watch(call, deadline) else trio.CancelScope(deadline=deadline):
            await call.done.wait()
        # Here also when the time is up, and even then the reply may just have come.
        unfinished = call.is_late or not call.done.is_set()
        if unfinished and call.reply is None and not call.is_lost:
            raise RequestTimeout(_slow(call, seconds), was_sent=call.sent)
    finally:
        exchange.forget(call)


def _slow(call: Call, seconds: float) -> str:
    what = "it was sent, and the server may have acted on it" if call.sent else "it was not sent"
    if call.key is None:
        return f"the message could not be sent within {seconds:g} s; {what}"
    return f"no reply within {seconds:g} s to the request with the id {call.key!r}; {what}"
