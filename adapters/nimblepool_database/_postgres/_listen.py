"""LISTEN: notifications, on a connection of their own."""

from __future__ import annotations

from collections import deque
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, Self, final

import trio
from psycopg import OperationalError
from psycopg.sql import SQL, Identifier

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg import Notify

    from ._trio_connection import TrioConnection

SILENCE: Final = 30.0
"""Seconds without a word from the server after which it is asked whether it is still there."""
LONGEST: Final = 63
"""Bytes of a name."""
PATIENCE: Final = 5.0
"""Seconds that it may take to answer."""


@final
class Notifications:
    """Yields what is notified, in the order of arrival, until the connection is lost.

    A wait that is cancelled loses nothing and ends nothing: what arrives meanwhile comes out of the next one.
    """

    def __init__(self, raw: TrioConnection[Any], silence: float = SILENCE, patience: float = PATIENCE) -> None:
        self._raw = raw
        self._silence = silence
        self._patience = patience
        self._arrived: deque[Notify] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Notify:
        """Wait for the next notification.

        Raises:
            psycopg.OperationalError: the connection is lost, or its block has ended.
        """
        if self._arrived:
            await trio.lowlevel.checkpoint()
        while not self._arrived:
            if not await self._receive():
                await self._ask()
        return self._arrived.popleft()

    async def _receive(self) -> bool:
        async with aclosing(self._raw.notifies(timeout=self._silence, stop_after=1)) as notifies:
            async for notify in notifies:
                self._arrived.append(notify)
        return bool(self._arrived)

    async def _ask(self) -> None:
        """Make sure that a silent server lives: a network can swallow a connection without a trace."""
        with trio.move_on_after(self._patience):
            await self._raw.execute("SELECT 1", prepare=False)
            return
        await self._raw.close()
        raise OperationalError(f"the server was silent for {self._silence:g} s, and then gave no answer")


async def listen_to(raw: TrioConnection[Any], channels: Iterable[str]) -> None:
    """Have the server send what is notified on ``channels``; their names are quoted, and so case matters."""
    for channel in channels:
        await raw.execute(SQL("LISTEN {}").format(Identifier(channel)), prepare=False)


def check_channels(channels: Iterable[str]) -> tuple[str, ...]:
    """Return the channels as a tuple.

    Raises:
        ValueError: there is none, or one is not a name that PostgreSQL can keep apart from others.
    """
    if isinstance(channels, str) or not (names := tuple(channels)):
        raise ValueError("channels must be one or more names, in a list or tuple")
    for name in names:
        _check_channel(name)
    return names


def _check_channel(name: object) -> None:
    # PostgreSQL refuses longer ones in NOTIFY, and cuts them off in LISTEN.
    if not isinstance(name, str) or not 0 < len(name.encode()) <= LONGEST or "\0" in name:
        raise ValueError(f"a channel must be a name of 1 to {LONGEST} bytes, not {name!r}")
