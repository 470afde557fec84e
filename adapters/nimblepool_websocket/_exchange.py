"""Many requests in flight on one socket.

Two tasks do all that touches the connection: a writer and a reader. So a client that is cancelled never cuts a frame in
two, and what it waited for is merely forgotten. The server may answer in any order.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Final, final

import trio
from websockets.exceptions import ConnectionClosed

from ._call import Call
from ._errors import RequestLost, lost
from ._expiry import Expiry
from ._watched import send_many, unread_frames

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
        _calls has every call that expects a reply, is not settled, and whose client has not given up, under its key
        _forgotten has the keys of sent calls whose clients gave up and whose replies have not come
        no key is in both
        _writing is what the writer is handing to the network
        _outbox has what no writer took, in the order in which it was asked for, and whose clients have not given up
        _over is set once nothing more can come from the socket
        _handing_on tells whether the reader waits for subscribers, and not for the socket
        _failure is what ends the program: `correlate` raised it
    """

    def __init__(self, socket: Socket, correlator: Correlator, hub: Hub, send_timeout: float) -> None:
        self._socket = socket
        self._correlator = correlator
        self._hub = hub
        self._send_timeout = send_timeout
        self._calls: dict[Hashable, Call] = {}
        self._forgotten: OrderedDict[Hashable, None] = OrderedDict()
        self._outbox: OrderedDict[Call, None] = OrderedDict()
        self._writing: list[Call] = []
        self._work = trio.Event()
        self._expiry = Expiry()
        self._over = trio.Event()
        self._reading = trio.CancelScope()
        self._handing_on = False
        self._failure: BaseException | None = None

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
        if not self._socket.is_alive or self._over.is_set():
            call.lose()
            return call
        if key is not None:
            self._calls[key] = call
        self._outbox[call] = None
        self._work.set()
        return call

    def watch(self, call: Call, deadline: float) -> bool:
        """See that the call is `done` by ``deadline``; ``False`` if that is the caller's to do."""
        return deadline == inf or self._expiry.add(call, deadline)

    def forget(self, call: Call) -> None:
        """Wait for the call no longer; a reply that still comes is dropped, and what was not sent never is."""
        self._expiry.drop(call)
        if call.is_settled:
            return
        self._outbox.pop(call, None)
        if call.key is not None:
            self._calls.pop(call.key, None)
            if call.was_sent:
                self._forget_reply(call.key)

    def lost(self, call: Call) -> BaseException:
        """Return what somebody is told whose call was lost with its socket."""
        if self._failure is not None:
            return self._failure
        error = lost(self._socket.raw.protocol, RequestLost)
        error.was_sent = call.was_sent
        return error

    # Trio raises Ctrl-C in any task that is not protected, and it has no business in these.

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Read and write until the socket is closed; then nobody waits any more."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_writing)
                nursery.start_soon(self._expiry.run)
                nursery.start_soon(self._hear_of_the_end)
                await self._keep_reading()
                nursery.cancel_scope.cancel()
        finally:
            self._over.set()
            self._lose_all()

    @trio.lowlevel.enable_ki_protection
    async def _keep_writing(self) -> None:
        # When it is lost, the reader hears of it, too, once it has read what came before.
        with suppress(ConnectionClosed):
            await self._write()

    async def _write(self) -> None:
        with trio.CancelScope() as patience:
            while self._socket.is_alive:
                if batch := self._next_batch():
                    patience.deadline = trio.current_time() + self._send_timeout
                    await self._send(batch)
                    patience.deadline = inf
                else:
                    self._work = trio.Event()
                    await self._work.wait()

    async def _send(self, batch: list[Call]) -> None:
        try:
            await send_many(self._socket.raw, [(call.data, call.is_text) for call in batch])
        except trio.Cancelled:
            # The server has stopped to read, or the socket is closed meanwhile. A close frame after half a message
            # would count as the rest of it.
            self._socket.give_up()
            raise
        self._writing = []
        for call in batch:
            call.written()

    def _next_batch(self) -> list[Call]:
        """Take what goes out next: not so much that all of it is at risk when the socket is lost."""
        batch: list[Call] = []
        size = 0
        while self._outbox and size < BATCH:
            call, _ = self._outbox.popitem(last=False)
            if call.take():
                size += len(call.data)
                batch.append(call)
        self._writing = batch
        return batch

    async def _keep_reading(self) -> None:
        try:
            with self._reading, suppress(ConnectionClosed):
                await self._read()
        except (Exception, trio.Cancelled):
            raise
        except BaseException as error:
            # It is meant to end the program, and no client made this task; but clients wait for it.
            logger.exception("correlate failed; the requests of its socket fail with it")
            self._failure = error

    async def _read(self) -> None:
        raw = self._socket.raw
        while not self._over.is_set() or self._has_message():
            message = await raw.recv()
            if not self._answer(message):
                self._handing_on = True
                await self._hub.publish(message, self._over)
                self._handing_on = False

    @trio.lowlevel.enable_ki_protection
    async def _hear_of_the_end(self) -> None:
        """See that who waits for a reply hears at once that none can come.

        The driver waits for the server to close the TCP connection, too, before it ends what receives.
        """
        await self._socket.wait_gone()
        self._over.set()
        self._hub.nudge()
        if not self._handing_on and not self._has_message():
            self._reading.cancel()

    def _has_message(self) -> bool:
        """Tell whether a whole message can be had without waiting."""
        return any(frame.fin for frame in unread_frames(self._socket.raw))

    def _answer(self, message: Data) -> bool:
        """Hand a reply to who waits for it; tell whether it was one."""
        key = self._key_of(message)
        if key is None:
            return False
        call = self._calls.get(key)
        if call is not None and call.was_sent:
            del self._calls[key]
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

    def _forget_reply(self, key: Hashable) -> None:
        self._forgotten[key] = None
        if len(self._forgotten) > MOST_FORGOTTEN:
            self._forgotten.popitem(last=False)

    def _lose_all(self) -> None:
        for call in (*self._calls.values(), *self._outbox, *self._writing):
            call.lose()
        self._calls.clear()
        self._outbox.clear()
