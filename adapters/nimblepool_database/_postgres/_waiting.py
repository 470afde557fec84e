"""Driving psycopg's generators with trio.

psycopg writes PostgreSQL's protocol as generators that yield what they wait for, `Wait.R`, `Wait.W` or both, and are
sent what became ready. Whoever drives them brings the event loop: here it is trio's.
"""

from __future__ import annotations

import select
from time import monotonic
from typing import TYPE_CHECKING, TypeVar, final

import trio
from psycopg.errors import OperationalError
from psycopg.waiting import Ready, Wait
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled, wait_readable, wait_writable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

T = TypeVar("T")

MAX_BUSY = 0.005
"""Seconds that a connection may run without giving other tasks a turn."""


class SocketLost(Exception):  # noqa: N818 - it says what is the case
    """The socket cannot be waited for: it was closed, or another task waits for it. The protocol is out of step."""


@final
class Turns:
    """When a connection last gave other tasks a turn.

    A wait for data to read always is a turn. But a socket is nearly always ready for writing, and then a look costs a
    tenth of a turn: thousands of steps of a COPY or a pipeline can pass without one, and meanwhile no other task would
    run and no deadline would be noticed. So after `MAX_BUSY` a turn is due.
    """

    def __init__(self) -> None:
        self._last = monotonic()

    def taken(self) -> None:
        """Note that other tasks have just had a turn."""
        self._last = monotonic()

    def due(self) -> bool:
        """Tell whether the others have waited long enough."""
        return monotonic() - self._last > MAX_BUSY


async def drive(gen: Generator[int, int, T], fd: int, turns: Turns) -> T:
    """Run a generator of psycopg's to its end and return its result, waiting for ``fd`` whenever it asks for that.

    When this is cancelled the generator is left where it waits. A generator that has ended is never cancelled: what it
    did to the connection and what the caller knows would differ.

    Raises:
        SocketLost: the socket was closed by another task, or another task waits for it.
        psycopg.Error: from the generator.
    """
    try:
        state = next(gen)
        while True:
            try:
                if state == Wait.R:
                    await wait_readable(fd)
                    turns.taken()
                    ready: int = Ready.R
                else:
                    ready = await _wait_for_writing(fd, state, turns)
            except (OSError, trio.ClosedResourceError, trio.BusyResourceError) as exc:
                raise SocketLost(str(exc)) from exc
            state = gen.send(ready)
    except StopIteration as end:
        if turns.due():
            await cancel_shielded_checkpoint()
            turns.taken()
        result: T = end.value
        return result


async def drive_opening(gen: Generator[tuple[int, int], int, T]) -> T:
    """Run a generator that opens a socket and names it, perhaps another one every time, to its end.

    However this ends, the generator is closed, and what it was opening with it.
    """
    try:
        fd, state = next(gen)
        while True:
            if state == Wait.R:
                await wait_readable(fd)
            else:
                await wait_writable(fd)
            fd, state = gen.send(state)
    except StopIteration as end:
        result: T = end.value
        return result
    except OSError as exc:
        raise OperationalError(f"the socket is lost: {exc}") from exc
    finally:
        gen.close()


async def _wait_for_writing(fd: int, state: int, turns: Turns) -> int:
    if turns.due():
        await checkpoint()
        turns.taken()
    ready = _ready_now(fd, state)
    if not ready:
        ready = await _wait_for_any(fd, state)
        turns.taken()
    return ready


async def _wait_for_any(fd: int, state: int) -> int:
    """Wait until the socket is ready for reading or writing.

    A server that waits for us to read its answers reads no more: whoever only waited to write would wait forever.
    """
    if state == Wait.W:
        await wait_writable(fd)
        return Ready.W
    errors: list[BaseException] = []

    # Caught here, an error stays what it is: the nursery would wrap it in a group.
    async def end_with(wait: Callable[[int], Awaitable[None]], either: trio.CancelScope) -> None:
        try:
            await wait(fd)
        except (OSError, trio.ClosedResourceError, trio.BusyResourceError) as exc:
            errors.append(exc)
        either.cancel()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_with, wait_readable, nursery.cancel_scope)
            nursery.start_soon(end_with, wait_writable, nursery.cancel_scope)
    except BaseExceptionGroup:
        # The two waits were cancelled together: make one cancellation of it.
        await checkpoint_if_cancelled()
        raise
    if errors:
        raise errors[0]
    return _ready_now(fd, state)


def _ready_now(fd: int, state: int) -> int:
    if not hasattr(select, "poll"):
        # Windows has no poll; elsewhere select fails for numbers from 1024.
        wanted = [fd] if state & Wait.R else [], [fd] if state & Wait.W else []
        readable, writable, _ = select.select(*wanted, [], 0)
        return (Ready.R if readable else 0) | (Ready.W if writable else 0)
    poll = select.poll()
    poll.register(fd, (select.POLLIN if state & Wait.R else 0) | (select.POLLOUT if state & Wait.W else 0))
    events = poll.poll(0)
    if not events:
        return 0
    # An error or a hang-up makes the socket ready for everything: libpq will find out what happened.
    seen = events[0][1]
    return state & ((Ready.R if seen & ~select.POLLOUT else 0) | (Ready.W if seen & ~select.POLLIN else 0))
