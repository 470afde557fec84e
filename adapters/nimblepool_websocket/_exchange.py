"""Many requests in flight on one socket.

Two tasks do all that touches the connection: a writer and a reader. So a client that is cancelled never cuts a frame in
two, and what it waited for is merely forgotten. The server may answer in any order.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Final, final

import trio
from websockets.exceptions import ConnectionClosed

from ._call import Call
from ._errors import RequestLost, lost
from ._expiry import Expiry
from ._watched import send_many

if TYPE_CHECKING:
    from collections.abc import Hashable

    from websockets.typing import Data

    from ._correlate import Correlator
    from ._hub import Hub
    from ._socket import Socket

logger = logging.getLogger("nimblepool")
BATCH: Final = 16_384
"""Bytes after which no further message goes out in the same system call."""
MOST_FORGOTTEN: Final = 10_000
"""Ids that are remembered after their clients gave up, for a server that never answers them."""


@final
class Exchange:
    """The requests of one socket, from the call to the reply.

    Invariants:
        _calls has every call that expects a reply and is not done, under its key
        _forgotten has the keys of sent calls whose clients gave up and whose replies have not come
        no key is in both
        _writing is what the writer is handing to the network
        _outbox has what is not sent, in the order in which it was asked for; a call that gave up may still be in it
    """

    def __init__(self, socket: Socket, correlator: Correlator, hub: Hub, send_timeout: float) -> None:
        self._socket = socket
        self._correlator = correlator
        self._hub = hub
        self._send_timeout = send_timeout
        self._calls: dict[Hashable, Call] = {}
        self._forgotten: OrderedDict[Hashable, None] = OrderedDict()
        self._outbox: deque[Call] = deque()
        self._writing: list[Call] = []
        self._work = trio.Event()
        self._expiry = Expiry()

    @property
    def in_flight(self) -> int:
        """How many requests wait for a reply."""
        return len(self._calls)

    def submit(self, key: Hashable | None, data: bytes, *, is_text: bool) -> Call:
        """Have ``data`` sent; whoever waits for its reply must `forget` the call in the end.

        Args:
            key: the id that the reply will have; ``None`` if none is expected.
            data: the message.
            is_text: whether it goes as text.

        Raises:
            ValueError: a request with this id is in flight, or its reply may still come though nobody waits for it.
        """
        if key is not None and (key in self._calls or key in self._forgotten):
            raise ValueError(f"a request with the id {key!r} is in flight on this socket: each needs an id of its own")
        call = Call(key, data, is_text=is_text)
        if not self._socket.is_alive:
            call.lose()
            return call
        if key is not None:
            self._calls[key] = call
        self._outbox.append(call)
        self._work.set()
        return call

    def watch(self, call: Call, deadline: float) -> bool:
        """See that the call is `done` by ``deadline``; ``False`` if that is the caller's to do."""
        return deadline == inf or self._expiry.add(call, deadline)

    def forget(self, call: Call) -> None:
        """Wait for the call no longer; a reply that still comes is dropped, and what was not sent never is."""
        self._expiry.drop(call)
        if call.reply is not None or call.is_lost or (call.done.is_set() and not call.is_late):
            return
        if call.sent:
            self._forget_reply(call.key)
        else:
            call.lose()
        if call.key is not None:
            self._calls.pop(call.key, None)

    def lost(self, call: Call) -> RequestLost:
        """Return what became of a call whose socket is gone."""
        error = lost(self._socket.raw.protocol, RequestLost)
        error.was_sent = call.sent
        return error

    async def run(self) -> None:
        """Read and write until the socket is closed; then nobody waits any more."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_writing)
                nursery.start_soon(self._expiry.run)
                await self._read()
                nursery.cancel_scope.cancel()
        finally:
            self._lose_all()

    async def _keep_writing(self) -> None:
        # When it is lost, the reader hears of it, too, once it has read what came before.
        with suppress(ConnectionClosed):
            await self._write()

    async def _write(self) -> None:
        with trio.CancelScope() as patience:
            while self._socket.is_alive:
                if batch := self._next_batch():
                    patience.deadline = trio.current_time() + self._send_timeout
                    await send_many(self._socket.raw, [(call.data, call.is_text) for call in batch])
                    patience.deadline = inf
                    self._written(batch)
                else:
                    self._work = trio.Event()
                    await self._work.wait()
        if patience.cancelled_caught:
            # The time is up: the server has stopped to read.
            self._socket.give_up()

    def _next_batch(self) -> list[Call]:
        """Take what goes out next: not so much that all of it is at risk when the socket is lost."""
        batch: list[Call] = []
        size = 0
        while self._outbox and size < BATCH:
            call = self._outbox.popleft()
            if not call.is_lost:
                call.sent = True
                size += len(call.data)
                batch.append(call)
        self._writing = batch
        return batch

    def _written(self, batch: list[Call]) -> None:
        self._writing = []
        for call in batch:
            if call.key is None:
                call.done.set()

    async def _read(self) -> None:
        raw = self._socket.raw
        while True:
            try:
                message = await raw.recv()
            except ConnectionClosed:
                return
            if not self._answer(message):
                await self._hub.publish(message)

    def _answer(self, message: Data) -> bool:
        """Hand a reply to who waits for it; tell whether it was one."""
        key = self._key_of(message)
        if key is None:
            return False
        call = self._calls.pop(key, None)
        if call is not None:
            call.answer(message)
            return True
        return self._forgotten.pop(key, self) is not self

    def _key_of(self, message: Data) -> Hashable | None:
        try:
            key = self._correlator.reply_id(message)
            hash(key)
        except Exception:
            logger.exception("correlate failed; the message counts as unsolicited")
            return None
        return key

    def _forget_reply(self, key: Hashable | None) -> None:
        if key is not None:
            self._forgotten[key] = None
            if len(self._forgotten) > MOST_FORGOTTEN:
                self._forgotten.popitem(last=False)

    def _lose_all(self) -> None:
        for call in (*self._calls.values(), *self._outbox, *self._writing):
            call.lose()
        self._calls.clear()
        self._outbox.clear()
