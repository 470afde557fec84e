"""Breaking off what a connection's thread is doing."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

logger = logging.getLogger("nimblepool.database")


@final
class Canceller:
    """Asks a driver to break off the work that its connection is in, and nothing that comes later.

    The driver's cancel function may take its time: many go to the server over a connection of their own. So it runs in
    a thread beside, and the connection's thread waits for it to return before it goes on to anything else.

    Args:
        cancel: the driver's function, or ``None`` if it has none; then nothing is ever broken off.
        name: whose work it is, for the log.

    Invariants:
        _asking implies that the connection's thread is inside `cancellable`
    """

    def __init__(self, cancel: Callable[[Any], object] | None, name: str) -> None:
        self._cancel = cancel
        self._name = name
        self._changed = threading.Condition()
        self._target: Any = None
        self._asking = False
        self._asked = False

    @contextmanager
    def cancellable(self, connection: object) -> Generator[None, None, None]:
        """Let the block, in the connection's thread, be broken off; leave it when nobody does so any more."""
        with self._changed:
            self._target = connection
            self._asked = False
        try:
            yield
        finally:
            with self._changed:
                self._target = None
                self._changed.wait_for(lambda: not self._asking)

    @property
    def asked(self) -> bool:
        """Whether the last block, or the present one, was asked to break off."""
        return self._asked

    def ask(self) -> None:
        """Ask for the present block to be broken off, if there is one and nobody is asking; does not block."""
        with self._changed:
            if self._cancel is None or self._target is None or self._asking:
                return
            self._asking = self._asked = True
            target = self._target
        try:
            trio.lowlevel.start_thread_soon(lambda: self._run(target), self._came_back, f"cancel {self._name}")
        except RuntimeError:
            # No thread to be had at this moment: asked again in a moment.
            self._came_back()

    def _run(self, connection: object) -> None:
        assert self._cancel is not None, "bug: asked without a cancel function"
        try:
            self._cancel(connection)
        except Exception as error:  # noqa: BLE001 - the work may have ended by itself; if not, it is asked again
            # Its text may hold what the function connects with.
            logger.info("cancelling a statement of %s raised %s", self._name, type(error).__name__)

    def _came_back(self, _: object = None) -> None:
        with self._changed:
            self._asking = False
            self._changed.notify_all()
