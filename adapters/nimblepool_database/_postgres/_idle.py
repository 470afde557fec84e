"""Noticing that the server closed a connection while nobody used it.

Whoever uses the connection hears of its end by itself. Beside that there are two looks at the socket:

- At every checkout, one read that does not wait: what the kernel knows already costs about a microsecond to ask.
- While a connection has been at rest for a while, a task waits for its socket, so that a dead connection is replaced
  before anybody asks for it. Two tasks must not wait for one socket: beginning a use ends the wait, at once. A
  connection in constant use never gets that far, and pays nothing.

An idle server sends nothing but notices, changed parameters and notifications that nobody waits for, which are read
and dropped; and its last words, which libpq passes on as a notice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

import trio

from ._errors import error_from

if TYPE_CHECKING:
    import psycopg
    from psycopg.errors import Diagnostic

    from ._trio_connection import TrioConnection

REST: Final = 1.0
"""Seconds; a connection that was not used for one to two times as long is watched."""
LAST_WORDS: Final = frozenset({"FATAL", "PANIC"})
"""Severities after which a session ends."""
ENDING: Final = "57P"
"""What the codes begin with that say so, too: after another session's crash the server only warns, and then closes."""


@final
class IdleWatch:
    """Looks after one connection between its uses.

    Invariant: nobody waits for the socket here while the connection is in use.

    Attributes:
        farewell: the server's last words, as an error, once they were heard; also while the connection is in use.
    """

    def __init__(self, raw: TrioConnection[Any]) -> None:
        self._pgconn = raw.pgconn
        self._in_use = False
        self._was_used = False
        self._waiting: trio.CancelScope | None = None
        self.farewell: psycopg.OperationalError | None = None
        raw.add_notice_handler(self._hear)

    def begin_use(self) -> None:
        """Leave the socket to the user."""
        self._in_use = True
        if self._waiting is not None:
            self._waiting.cancel()

    def end_use(self) -> None:
        """Look after the connection again."""
        self._in_use = False
        self._was_used = True

    def look(self) -> None:
        """Read what has arrived, without waiting; to be called while the server is idle.

        Raises:
            psycopg.OperationalError: the connection is closed, or the server has said that it will close it.
        """
        self._pgconn.consume_input()
        # Asked for what it does beside answering: it interprets what was read.
        self._pgconn.is_busy()
        if self.farewell is not None:
            raise self.farewell

    async def run(self) -> None:
        """Wait until the connection has ended while nobody used it.

        Raises:
            psycopg.OperationalError: that it has, and why.
            trio.ClosedResourceError: its user closed it.
        """
        while True:
            await trio.sleep(REST)
            if not self._in_use and not self._was_used:
                await self._await_word()
            self._was_used = False

    async def _await_word(self) -> None:
        with trio.CancelScope() as self._waiting:
            await trio.lowlevel.wait_readable(self._pgconn.socket)
        self._waiting = None
        if not self._in_use:
            self.look()

    def _hear(self, notice: Diagnostic) -> None:
        state = notice.sqlstate
        if notice.severity_nonlocalized in LAST_WORDS or (state is not None and state.startswith(ENDING)):
            self.farewell = error_from(state, notice.message_primary or "the server has closed the connection")
